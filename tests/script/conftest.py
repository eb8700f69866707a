import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the echo doors, since their schema is written beside them."""
    return shutil.copytree(
        Path(__file__).parent / "echo_doors", tmp_path_factory.mktemp("echo") / "doors"
    )


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "script.local_cog", *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("INSTANCE_DIR", "BASE_MODEL")}
    return inherited | variables


def processes_in(folder: Path) -> list[str]:
    """The command lines of the processes whose working directory is a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder.resolve()):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.fixture
def run(doors: Path) -> Iterator[Run]:
    """Run `script/train` or `script/predict` with the echo doors; nothing may survive it."""

    def run(
        mode: str, *arguments: object, doors_dir: Path = doors, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(mode, "--doors", doors_dir, *arguments),
            cwd=ROOT,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    yield run
    assert processes_in(doors) == []
