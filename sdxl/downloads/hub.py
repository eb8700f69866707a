"""Repositories of the Hugging Face hub, in its own cache (`HF_HOME`); safetensors only."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sdxl.downloads.catalog import CATALOG, revision_of

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10
_WEIGHTS = re.compile(r"(diffusion_pytorch_)?model(?P<half>\.fp16)?(-\d+-of-\d+)?\.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_UNREACHABLE = (httpx2.TransportError, OfflineModeIsEnabled)

Chooser = Callable[[Sequence[str]], list[str]]  # from a repository's files to those needed


@dataclass(frozen=True, kw_only=True, slots=True)
class RepoFiles:
    """What is in a repository at one commit."""

    commit: str
    files: list[str]


def list_repo(repo: str, revision: str) -> RepoFiles:
    """Ask the hub what a repository has.

    Raises:
        ValueError: It cannot be had; the text says why.
    """
    try:
        return _list(repo, revision)
    except (*_UNREACHABLE, HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{repo} cannot be had: {_reason(error)}") from error


def _list(repo: str, revision: str) -> RepoFiles:
    info = HfApi(endpoint=constants.ENDPOINT).model_info(
        repo, revision=revision, timeout=_TIMEOUT_SECONDS
    )
    files = [sibling.rfilename for sibling in info.siblings or []]
    return RepoFiles(commit=info.sha or revision, files=files)


def snapshot(repo: str, choose: Chooser, revision: str | None = None, purpose: str = "") -> Path:
    """Return the folder with some files of a repository.

    A commit that is here whole is used without asking the hub.

    Args:
        repo: `owner/model`.
        choose: From all its files to the ones that are needed.
        revision: A branch, tag or commit; None is the commit that the catalog pins, else `main`.
        purpose: Ends the subject of the error's sentence.

    Raises:
        ValueError: It is not here and cannot be had; the text says why, where it was looked for and
            how to provide it.
    """
    revision = revision or revision_of(repo) or constants.DEFAULT_REVISION
    here = find_snapshot(repo, revision, choose) if _COMMIT.fullmatch(revision) else None
    if here:
        return here
    try:
        return _download(repo, revision, choose)
    except (*_UNREACHABLE, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ValueError(
            f"the model {repo}{purpose} is not on this machine (Hugging Face cache, HF_HOME) and "
            f"could not be downloaded: {_reason(error)}. Run {_command(repo)} where there is a "
            "connection and copy the cache, or give a local directory"
        ) from error


def find_snapshot(repo: str, revision: str, choose: Chooser) -> Path | None:
    """Return the folder with a repository's files if all that are needed are on this machine."""
    try:
        tree = get_cached_repo_tree(repo, revision=revision, cache_dir=constants.HF_HUB_CACHE)
        files = choose([file.path for file in tree])
        return _snapshot(repo, revision, files, is_local=True)
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        return None


def _download(repo: str, revision: str, choose: Chooser) -> Path:
    try:
        listing = _list(repo, revision)
    except (*_UNREACHABLE, HfHubHTTPError) as error:
        try:
            # of a copy that another tool made, it is not known whether it is whole
            here = find_snapshot(repo, revision, choose) or _snapshot(
                repo, revision, None, is_local=True
            )
        except LocalEntryNotFoundError:
            raise error from None
        if not isinstance(error, OfflineModeIsEnabled):
            logger.warning("The hub cannot be asked for %s: using the copy on this machine.", repo)
        return here
    return _snapshot(repo, revision, choose(listing.files), is_local=False)


def _snapshot(repo: str, revision: str, files: list[str] | None, *, is_local: bool) -> Path:
    return Path(
        snapshot_download(
            repo,
            revision=revision,
            allow_patterns=files,
            local_files_only=is_local,
            endpoint=constants.ENDPOINT,
        )
    )


def weight_files(repo: str, files: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Choose the weights in folders of a repository ("" is its top).

    Those of a folder are a diffusers model's, and in half precision where there are such: half the
    download, the same pictures.

    Raises:
        ValueError: A folder has none in safetensors.
    """
    chosen: list[str] = []
    for folder in folders:
        prefix = f"{folder}/" if folder else ""
        names = [file.removeprefix(prefix) for file in files if file.startswith(prefix)]
        matches = [match for name in names if (match := _WEIGHTS.fullmatch(name))]
        halves = [match for match in matches if match["half"] and folder]
        if not matches:
            raise ValueError(
                f"the model {repo} has no weights as .safetensors in {folder or 'its top folder'} "
                "(others are pickles, which can run any code when they are opened, and are never "
                "read): give a repository that has them, the address of a file, or a directory"
            )
        plain = [match for match in matches if not match["half"]]
        chosen += [prefix + match[0] for match in halves or plain or matches]
    return chosen


def _command(repo: str) -> str:
    """Return what to type to download a repository."""
    names = [model.name for model in CATALOG if model.repo == repo]
    return f"`python -m sdxl.downloads {names[0]}`" if names else f"`hf download {repo}`"


def _reason(error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to ask the hub"
    if isinstance(error, GatedRepoError):
        return (
            "its authors want their license accepted: do so on its page at the hub, and set "
            "HF_TOKEN to a token of that account"
        )
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "the hub has no such repository, or it is private (set HF_TOKEN to a token that may "
            "read it), or the token has expired"
        )
    if isinstance(error, (*_UNREACHABLE, LocalEntryNotFoundError)):
        return "there is no connection to the hub"
    return str(error).splitlines()[0]
