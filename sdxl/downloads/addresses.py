"""From what people paste to the address of a file: pure, nothing is asked of any server."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlsplit

_REPO = r"[\w.-]+/[\w.-]+"
_REPO_ID = re.compile(_REPO)
_FILE_IN_REPO = re.compile(rf"(?P<repo>{_REPO})/(?P<file>.+\.(?:safetensors|tar))")
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB_PAGE = re.compile(rf"/(?P<repo>{_REPO})(?:/tree/(?P<revision>[^/]+))?/?")
_HUB_FILE = re.compile(rf"/(?P<repo>{_REPO})/(?:blob|resolve)/(?P<revision>[^/]+)/(?P<file>.+)")
_REPLICATE_HOSTS = ("replicate.com", "www.replicate.com")
_REPLICATE_PAGE = re.compile(rf"/(?P<repo>{_REPO})(?:/(?:versions/)?(?P<version>\w+))?/?")
_REPLICATE_WEIGHTS = re.compile(rf"/{_REPO}(?P<version>/versions/\w+)?/_weights/?")
CIVITAI_HOSTS = ("civitai.com", "www.civitai.com")
_SITES = (*_HUB_HOSTS, *_REPLICATE_HOSTS, *CIVITAI_HOSTS)
_BRANCH = re.compile(r"(?![0-9a-f]{40}$).*")
_SHOWN_CHARACTERS = 40  # of a data: URL, which holds the whole file


@dataclass(frozen=True, slots=True)
class FileAddress:
    """The address of a file.

    Attributes:
        url: http, https or data.
        is_moving: Whether another file may lie there tomorrow (a branch, the latest version).
    """

    url: str
    is_moving: bool = False


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository of the Hugging Face hub, whose files have to be asked for."""

    repo: str
    revision: str = "main"


def is_repo_id(name: str) -> bool:
    """Tell whether `name` could be a hub repository: `owner/model`."""
    return _REPO_ID.fullmatch(name) is not None


def is_address(name: str) -> bool:
    """Tell whether `name` is something to download, rather than a path or a repository."""
    return name.startswith(("http://", "https://", "data:"))


def locate(name: str, endpoint: str) -> FileAddress | HubRepo:
    """Return where the file is to be had that a name or the address of a page stands for.

    Args:
        name: The address of a file or a page (the hub's, Replicate's, Civitai's; `https://` may be
            missing there), `owner/model` or `owner/model/file.safetensors`.
        endpoint: Of the hub: `https://huggingface.co`, or a mirror of it (`HF_ENDPOINT`).

    Raises:
        ValueError: It is none of these, or the page shows several files.
    """
    if name.startswith("data:"):
        return FileAddress(name)
    if name.split("/")[0] in _SITES:
        name = f"https://{name}"
    if is_address(name):
        return _from_page(name, endpoint)
    if is_repo_id(name):
        return HubRepo(name)
    if match := _FILE_IN_REPO.fullmatch(name):
        return FileAddress(hub_address(endpoint, match["repo"], "main", match["file"]), True)
    raise ValueError(
        f"{name!r} is no file on this machine and no name of weights: give the address of a "
        ".safetensors or .tar file, a Hugging Face repository (owner/model, or "
        "owner/model/file.safetensors), or the address of a model at huggingface.co, replicate.com "
        "or civitai.com"
    )


def hub_address(endpoint: str, repo: str, revision: str, file: str) -> str:
    """Return the address of a file in a hub repository."""
    return f"{endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(file)}"


def _from_page(address: str, endpoint: str) -> FileAddress | HubRepo:
    url = urlsplit(address)
    if url.hostname in _HUB_HOSTS:
        # addresses of a file are percent-encoded already
        if match := _HUB_FILE.fullmatch(url.path):
            repo, revision, file = match["repo"], match["revision"], match["file"]
            direct = f"{endpoint}/{repo}/resolve/{revision}/{file}"
            return FileAddress(direct, _BRANCH.fullmatch(revision) is not None)
        if match := _HUB_PAGE.fullmatch(url.path):
            return HubRepo(match["repo"], match["revision"] or "main")
    if url.hostname in _REPLICATE_HOSTS:
        if match := _REPLICATE_WEIGHTS.fullmatch(url.path):
            return FileAddress(address, match["version"] is None)
        if match := _REPLICATE_PAGE.fullmatch(url.path):
            version = f"/versions/{match['version']}" if match["version"] else ""
            direct = f"https://replicate.com/{match['repo']}{version}/_weights"
            return FileAddress(direct, not version)
    if url.hostname in CIVITAI_HOSTS and url.path.startswith("/models/"):
        version = parse_qs(url.query).get("modelVersionId", [""])[0]
        if not version.isdecimal():
            raise ValueError(
                f"{shown(address)} is the page of a model at Civitai, which has several versions: "
                "choose one there and give the page's address then (it ends in "
                "?modelVersionId=...), or that of its download button"
            )
        return FileAddress(f"https://civitai.com/api/download/models/{version}")
    return FileAddress(address)


def shown(address: str) -> str:
    """Return an address as logs and errors may show it: passwords, signatures and tokens left out.

    >>> shown("https://user:secret@example.com/a.tar?token=secret")
    'https://example.com/a.tar'
    """
    if address.startswith("data:"):
        return f"{address[:_SHOWN_CHARACTERS]}..."
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
