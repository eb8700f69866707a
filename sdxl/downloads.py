"""From the name of a model or the address of a file to a path on this machine.

Only the doors and `preprocess` cause downloads, and all of them come through here.
"""

import base64
import hashlib
import lzma
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

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
_CONFIGS = ["*.json", "*.txt"]
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02")  # torch.save's zip, and before it
_HALF = re.compile(r"unet/.*\.fp16\.safetensors")
_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 16


def resolve_model(name: str) -> Path:
    """Return where a model lies: a diffusers directory, or a single `.safetensors` file.

    A repository is downloaded to the Hugging Face cache (`HF_HOME`) unless it is there already;
    safetensors files only. What an address gives is kept in `default_cache_dir()`, a tar unpacked.

    Args:
        name: `sdxl`, `pocket`, a local directory, a local `.safetensors` file, an http(s) address
            of such a file or of a tar of a diffusers directory, or a hub repository.

    Raises:
        ValueError: The name is none of these, or cannot be had; the text says where it was looked
            for and how to provide it.
    """
    if name == "pocket":
        return POCKET
    if name.startswith(("http://", "https://")):
        return _fetch_model(name, default_cache_dir())
    path = Path(name).expanduser()
    if name != "sdxl" and path.is_dir():
        return path
    if name != "sdxl" and (path.is_file() or path.suffix in (".safetensors", *_PICKLES)):
        return _single_file(path)
    repo = SDXL_REPO if name == "sdxl" else name
    if not _REPO_ID.fullmatch(repo):
        raise ValueError(
            f"base_model {name!r} was not found: give sdxl, pocket, a Hugging Face repository "
            "such as stabilityai/stable-diffusion-xl-base-1.0, a local diffusers directory, or the "
            "path or address of a .safetensors file"
        )
    return _from_hub(repo, lambda: _snapshot(repo))


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModelFiles:
    """Where the parts of a base model lie.

    Attributes:
        name: By which it was asked for, and by which prediction finds it again.
        weights: A diffusers directory, or a single `.safetensors` file.
        configs: The directory with its configs and tokenizers.
    """

    name: str
    weights: Path
    configs: Path


def resolve_base(name: str) -> BaseModelFiles:
    """Return the files of a base model; see `resolve_model` and `resolve_configs`."""
    weights = resolve_model(name)
    return BaseModelFiles(name=name, weights=weights, configs=resolve_configs(weights))


def resolve_configs(base: Path) -> Path:
    """Return the directory with a model's configs and tokenizers: `base` itself, or SDXL's.

    A single file has none of its own; those of SDXL are downloaded, without the weights.

    Args:
        base: What `resolve_model` returned.

    Raises:
        ValueError: They cannot be had; the text says where they were looked for.
    """
    if base.is_dir():
        return base
    return _from_hub(
        SDXL_REPO,
        lambda: Path(snapshot_download(SDXL_REPO, allow_patterns=_CONFIGS)),
        f", whose configs and tokenizers {base.name} needs,",
    )


def _from_hub(repo: str, download: Callable[[], Path], purpose: str = "") -> Path:
    try:
        return download()
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        offline = isinstance(error, LocalEntryNotFoundError)
        reason = "there is no connection to the hub" if offline else str(error).splitlines()[0]
        raise ValueError(
            f"the model {repo}{purpose} is not on this machine (Hugging Face cache, HF_HOME) and "
            f"could not be downloaded: {reason}. Connect to the internet, or run `hf download "
            f"{repo}` where there is one and copy the cache, or give a local directory"
        ) from error


def _single_file(path: Path) -> Path:
    """Return `path` if it looks like a safetensors file: eight bytes of length, then JSON."""
    if not path.is_file():
        raise ValueError(f"base_model {str(path)!r}: there is no such file")
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix in _PICKLES or start.startswith(_PICKLE_STARTS):
        raise ValueError(
            f"base_model {path.name} is a pickle, which can run any code when it is opened, and is "
            "never read: give the .safetensors file of the same model"
        )
    if start[8:] != b"{":
        raise ValueError(
            f"base_model {path.name} is no .safetensors file (it begins with {start!r}): give one, "
            "or a diffusers directory, or the address of a tar of one"
        )
    return path


def _fetch_model(address: str, cache_dir: Path) -> Path:
    """Download a single file, or a tar that is unpacked beside itself and then removed."""
    download = _cached_path(address, cache_dir)
    unpacked = download.with_name(download.name + ".unpacked")
    if not unpacked.is_dir():
        fetch_file(address, cache_dir)
        try:
            if not tarfile.is_tarfile(download):
                return _single_file(download)
            _unpack(download, unpacked)
        except ValueError as error:
            download.unlink()  # it is asked for anew the next time
            raise ValueError(
                f"{address} gave no model: {error}. The address must be that of the file itself "
                "(on the hub with /resolve/, not /blob/)"
            ) from error
        download.unlink()
    # a tar of the folder, or of what is in it
    entries = list(unpacked.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else unpacked


def _unpack(archive: Path, target: Path) -> None:
    """Unpack a tar under a temporary name, then rename it, so that no half model is ever seen."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        part = Path(folder) / "part"
        part.mkdir()
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(part, filter="data")
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise ValueError(f"the tar cannot be unpacked safely and whole ({error})") from error
        part.rename(target)


def _snapshot(repo: str) -> Path:
    try:
        siblings = model_info(repo, timeout=_TIMEOUT_SECONDS).siblings or []
    except (httpx2.TransportError, OfflineModeIsEnabled):
        return Path(snapshot_download(repo, local_files_only=True))
    files = [sibling.rfilename for sibling in siblings]
    # the half-precision networks where there are some: half the download, the same pictures
    weights = "*.fp16.safetensors" if any(map(_HALF.fullmatch, files)) else "*.safetensors"
    folder = "*/" if "model_index.json" in files else ""
    patterns = [*_CONFIGS, folder + weights]
    return Path(snapshot_download(repo, allow_patterns=patterns))


def fetch_file(address: str, cache_dir: Path) -> Path:
    """Return the local path of a file: `address` itself if it is a path, else its download.

    An http(s) download continues where an earlier one stopped, is renamed only when it is whole,
    and is found again under the hash of its address. A `data:` URL is the file itself, in base64.

    Raises:
        ValueError: The path does not exist, the address cannot be reached or answers an error, or
            what a `data:` URL holds is not base64.
    """
    if address.startswith("data:"):
        return _decode(address, cache_dir)
    url = urlparse(address)
    if url.scheme not in ("http", "https"):
        path = Path(address.removeprefix("file://")).expanduser()
        if not path.exists():
            raise ValueError(f"there is no file {address!r}")
        return path
    target = _cached_path(address, cache_dir)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(address, target)
        except requests.RequestException as error:
            raise ValueError(f"could not download {address}: {error}") from error
    return target


def _decode(address: str, cache_dir: Path) -> Path:
    """Return where the content of a `data:` URL lies, under its hash."""
    head, _, text = address.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("it is not marked ;base64")
        content = base64.b64decode(unquote(text), validate=True)
    except ValueError as error:
        start = f"{address[:40]}..."
        raise ValueError(f"{start} is no data: URL in base64 ({error})") from error
    target = cache_dir / hashlib.sha256(content).hexdigest()[:16] / "data"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name("data.part")
        part.write_bytes(content)
        part.replace(target)
    return target


def _cached_path(address: str, cache_dir: Path) -> Path:
    folder = cache_dir / hashlib.sha256(address.encode()).hexdigest()[:16]
    return folder / Path(urlparse(address).path).name


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
