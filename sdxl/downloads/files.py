"""Files by address: through the cache on disk."""

import base64
import hashlib
import logging
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
from huggingface_hub import constants

from sdxl.downloads.addresses import FileAddress, hub_address, is_address, locate, shown
from sdxl.downloads.cache import GB, CacheEntry, trim
from sdxl.downloads.hub import list_repo
from sdxl.downloads.transfer import download, etag_now, explain

logger = logging.getLogger(__name__)

DEFAULT_CACHE_GB = 20
# of a training of ours, with its words in it; of diffusers, the LoRA alone
USUAL_NAMES = ("trained_model.tar", "pytorch_lora_weights.safetensors")
_UNSAFE = re.compile(r"[^\w.-]|^\.+", re.ASCII)
_MAX_NAME_CHARACTERS = 100


def default_cache_dir() -> Path:
    """Where downloaded weights are kept: `MODEL_CACHE`, else a folder in the user's cache."""
    return Path(os.environ.get("MODEL_CACHE") or Path.home() / ".cache" / "sdxl-finetune")


def max_cache_bytes() -> int:
    """What the cache may hold: `MODEL_CACHE_GB` (10^9 bytes), else 20 GB.

    Raises:
        ValueError: It is no positive number.
    """
    text = os.environ.get("MODEL_CACHE_GB") or str(DEFAULT_CACHE_GB)
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise ValueError(f"MODEL_CACHE_GB must be a positive number of gigabytes, got {text!r}")
    return int(size * GB)


def fetch_weights(name: str) -> Path:
    """Return where trained weights lie that are asked for by any name that people use.

    Args:
        name: A local path; the address of a file (http, https, data); a Hugging Face repository
            (`owner/model`: its `pytorch_lora_weights.safetensors`, else the only `.safetensors` at
            its top), or `owner/model/file.safetensors`; the address of a model's page at
            huggingface.co, replicate.com or civitai.com. `HF_TOKEN` and `CIVITAI_API_TOKEN` open
            what is private there.

    Returns:
        A file or folder for `sdxl.weights.reading.read_weights`. What was downloaded is kept in
        `default_cache_dir()`.

    Raises:
        ValueError: It is none of these, or cannot be had; the text says what to do.
    """
    if not is_address(name) and Path(name).expanduser().exists():
        return Path(name).expanduser()
    place = locate(name, constants.ENDPOINT)
    if not isinstance(place, FileAddress):
        repo = list_repo(place.repo, place.revision)
        file = choose_weights(place.repo, repo.files)
        # the commit of just now is a file that will never change
        place = FileAddress(hub_address(constants.ENDPOINT, place.repo, repo.commit, file))
    return fetch_address(place, default_cache_dir())


def choose_weights(repo: str, files: list[str]) -> str:
    """Return the file with the weights among those of a hub repository.

    Raises:
        ValueError: There is none, or there are several.
    """
    candidates = [file for file in files if file.endswith(".safetensors") and "/" not in file]
    for usual in USUAL_NAMES:
        if usual in files:
            return usual
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        choices = ", ".join(f"{repo}/{file}" for file in sorted(candidates))
        raise ValueError(f"{repo} has several weights; give one of {choices}")
    raise ValueError(f"{repo} has no .safetensors file at its top: give another repository or file")


def fetch_file(address: str, cache_dir: Path) -> Path:
    """Return the local path of a file: `address` itself if it is a path, else its download.

    A download is found again under the hash of its address, and checked against its SHA-256 once a
    process. It continues where an earlier one stopped, and is seen only when it is whole. A `data:`
    URL is the file itself, in base64. When the cache grows over `max_cache_bytes()`, what was used
    longest ago is removed.

    Raises:
        ValueError: The path does not exist, the address cannot be had (the text says why and what
            to do), or what a `data:` URL holds is not base64.
    """
    if is_address(address):
        return fetch_address(FileAddress(address), cache_dir)
    path = Path(address.removeprefix("file://")).expanduser()
    if not path.exists():
        raise ValueError(f"there is no file {address!r}")
    return path


def fetch_address(address: FileAddress, cache_dir: Path) -> Path:
    """Return the local path of a download; see `fetch_file`."""
    max_bytes = max_cache_bytes()
    content = _decode(address.url) if address.url.startswith("data:") else None
    entry = entry_of(address.url, content, cache_dir)
    try:
        with entry.lock(shown(address.url)):
            found = entry.find()
            if found and not (address.is_moving and _has_moved(address.url, entry)):
                return found
            name = "data" if content else _name(address.url)
            target = entry.part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if content:
                etag = None
                target.write_bytes(content)
            else:
                etag = download(
                    address.url, target, lambda size: trim(cache_dir, max_bytes, entry, size)
                )
            path = entry.commit(name, shown(address.url), etag)
        trim(cache_dir, max_bytes, entry)
    except OSError as error:
        raise ValueError(
            f"could not keep {shown(address.url)} in {cache_dir}: {error.strerror or error}. Make "
            "room there or name another folder (MODEL_CACHE)"
        ) from error
    return path


def entry_of(address: str, content: bytes | None, cache_dir: Path) -> CacheEntry:
    """Return the place of an address in the cache; that of a `data:` URL is by its content."""
    if content is None:
        return CacheEntry.of(cache_dir, address)
    return CacheEntry(cache_dir, hashlib.sha256(content).hexdigest()[:16])


def _has_moved(address: str, entry: CacheEntry) -> bool:
    """Whether another file lies at an address now than the one in the cache."""
    etag = (entry.record() or {}).get("etag")
    try:
        now = etag_now(address)
    except requests.RequestException as error:
        logger.warning(
            "Using the copy of %s that is here; whether there is a newer one cannot be told: %s.",
            shown(address),
            explain(error, address),
        )
        return False
    return now != etag


def _name(address: str) -> str:
    """Return a file's name for an address: its last part, made harmless."""
    name = _UNSAFE.sub("_", unquote(urlsplit(address).path).rpartition("/")[2])
    return name[-_MAX_NAME_CHARACTERS:] or "download"


def _decode(address: str) -> bytes:
    """Return the content of a `data:` URL."""
    head, _, text = address.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("it is not marked ;base64")
        content = base64.b64decode(unquote(text), validate=True)
        if not content:
            raise ValueError("it is empty")
    except ValueError as error:
        raise ValueError(f"{shown(address)} is no data: URL in base64 ({error})") from error
    return content
