"""From the name of a model or the address of a file to a path on this machine.

Only the doors and `preprocess` cause downloads, and all of them come through here.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlparse

import httpx2
import requests
from huggingface_hub import model_info, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

POCKET = Path(__file__).parent.parent / "samples" / "pocket-sdxl"
SDXL_REPO = "stabilityai/stable-diffusion-xl-base-1.0"
_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HALF = re.compile(r"unet/.*\.fp16\.safetensors")
_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 16


def resolve_model(name: str) -> Path:
    """Return the directory of a model: `sdxl`, `pocket`, a local directory or a hub repository.

    A repository is downloaded to the Hugging Face cache (`HF_HOME`) unless it is there already;
    safetensors files only.

    Raises:
        ValueError: The name is none of these, or the repository cannot be had; the text says where
            it was looked for and how to provide it.
    """
    if name == "pocket":
        return POCKET
    path = Path(name).expanduser()
    if name != "sdxl" and path.is_dir():
        return path
    repo = SDXL_REPO if name == "sdxl" else name
    if not _REPO_ID.fullmatch(repo):
        raise ValueError(
            f"base_model {name!r} was not found: give sdxl, pocket, a Hugging Face repository "
            "such as stabilityai/stable-diffusion-xl-base-1.0, or a local diffusers directory"
        )
    try:
        return _snapshot(repo)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        offline = isinstance(error, LocalEntryNotFoundError)
        reason = "there is no connection to the hub" if offline else str(error).splitlines()[0]
        raise ValueError(
            f"the model {repo} is not on this machine (Hugging Face cache, HF_HOME) and could not "
            f"be downloaded: {reason}. Connect to the internet, or run `hf download {repo}` where "
            "there is one and copy the cache, or give a local directory"
        ) from error


def _snapshot(repo: str) -> Path:
    try:
        siblings = model_info(repo, timeout=_TIMEOUT_SECONDS).siblings or []
    except (httpx2.TransportError, OfflineModeIsEnabled):
        return Path(snapshot_download(repo, local_files_only=True))
    files = [sibling.rfilename for sibling in siblings]
    # the half-precision networks where there are some: half the download, the same pictures
    weights = "*.fp16.safetensors" if any(map(_HALF.fullmatch, files)) else "*.safetensors"
    folder = "*/" if "model_index.json" in files else ""
    patterns = ["*.json", "*.txt", folder + weights]
    return Path(snapshot_download(repo, allow_patterns=patterns))


def fetch_file(address: str, cache_dir: Path) -> Path:
    """Return the local path of a file: `address` itself if it is a path, else its download.

    An http(s) download continues where an earlier one stopped, is renamed only when it is whole,
    and is found again under the hash of its address.

    Raises:
        ValueError: The path does not exist, or the address cannot be reached or answers an error.
    """
    url = urlparse(address)
    if url.scheme not in ("http", "https"):
        path = Path(address.removeprefix("file://")).expanduser()
        if not path.exists():
            raise ValueError(f"there is no file {address!r}")
        return path
    target = cache_dir / hashlib.sha256(address.encode()).hexdigest()[:16] / Path(url.path).name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(address, target)
        except requests.RequestException as error:
            raise ValueError(f"could not download {address}: {error}") from error
    return target


def _download(address: str, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(address, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()  # it is longer than the file is now: begin anew at the next request
        answer.raise_for_status()
        resumed = answer.status_code == requests.codes.partial_content
        with part.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk)
        expected = int(answer.headers.get("Content-Length", 0)) + (have if resumed else 0)
    size = part.stat().st_size
    if "Content-Length" in answer.headers and size != expected:
        raise requests.ConnectionError(f"got {size} of {expected} bytes")
    part.replace(target)


def default_cache_dir() -> Path:
    """Where downloaded weights are kept: `MODEL_CACHE`, else a folder in the user's cache."""
    return Path(os.environ.get("MODEL_CACHE", Path.home() / ".cache" / "sdxl-finetune"))
