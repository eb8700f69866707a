"""Trained weights as a repository on the Hugging Face hub."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from PIL import Image

from sdxl.weights.archive import ARCHIVE_NAME, load_weights
from sdxl.weights.model_card import model_card
from sdxl.weights.reading import DIFFUSERS_NAME
from sdxl.weights.webui import embedding_files, webui_file

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_QUERY = re.compile(r"(?<=\S)\?[^\s']*")  # of an address: what is signed is as good as a password
_JPEG_QUALITY = 95
# what huggingface_hub raises when the hub refuses, is not there, or breaks off
_FAILURES = (HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A model repository that exists and may be written to; `open_hub_repo` makes it.

    Attributes:
        repo_id: `owner/name`.
    """

    repo_id: str
    _api: HfApi = field(repr=False)

    def push(self, archive: Path, samples: Sequence[tuple[str, Image.Image]] = ()) -> str:
        """Upload trained weights in one commit, with a model card; return the page's address.

        Args:
            archive: What a training returned.
            samples: Prompts, and pictures of them.

        Raises:
            ValueError: It is no such archive, or the upload failed; the text says why.
        """
        weights = load_weights(archive)
        files: dict[str, bytes | Path] = {ARCHIVE_NAME: archive, **embedding_files(weights)}
        if weights.has_lora:
            # kohya's keys: diffusers reads them too, and web UIs nothing else reliably
            files[DIFFUSERS_NAME] = webui_file(weights)
        pictures = {f"images/{i}.jpg": prompt for i, (prompt, _) in enumerate(samples, start=1)}
        for path, (_, picture) in zip(pictures, samples, strict=True):
            files[path] = _jpeg(picture)
        files["README.md"] = model_card(weights, self.repo_id, pictures).encode()
        additions = [
            CommitOperationAdd(name, str(content) if isinstance(content, Path) else content)
            for name, content in files.items()
        ]
        with _explained(f"could not push to {self.repo_id}"), _without_progress_bars():
            self._api.create_commit(
                self.repo_id, additions, commit_message="Upload the weights of a training"
            )
        return f"{self._api.endpoint}/{self.repo_id}"


def open_hub_repo(repo_id: str, token: str, is_public: bool = False) -> HubRepo:
    """Check name and token with the hub, and create the repository if there is none.

    Args:
        repo_id: `owner/name`.
        token: One that may write.
        is_public: Of a new repository; one that exists stays as it is.

    Raises:
        ValueError: The name is wrong, or the hub refuses the token or cannot be reached.
    """
    if not _REPO_ID.fullmatch(repo_id):
        raise ValueError(
            "hf_repo_id must be owner/name of a repository on the Hugging Face hub, such as "
            f"me/my-lora, got {repo_id!r}"
        )
    if not token.strip():
        raise ValueError(
            f"the repository {repo_id} needs a token of the Hugging Face hub that may write: give "
            "hf_token, or for python -m sdxl.weights the environment variable HF_TOKEN"
        )
    api = HfApi(token=token.strip())
    with _explained(f"hf_token: cannot write to {repo_id}"):
        user = api.whoami()
        names = [user["name"], *(org["name"] for org in user.get("orgs", []))]
        if repo_id.partition("/")[0] not in names:
            raise ValueError(f"the token is one of {' or '.join(names)}")
        api.create_repo(repo_id, private=not is_public, exist_ok=True)
    return HubRepo(repo_id, api)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn the hub's errors into one sentence that begins with `what`."""
    try:
        yield
    except _FAILURES as error:
        causes = [error, error.__cause__] if isinstance(error, RuntimeError) else [error]
        lines = [str(cause).strip().splitlines() for cause in causes if cause]
        reason = ": ".join(text[0].rstrip(".") for text in lines if text)
        reason = _QUERY.sub("", reason)
        raise ValueError(f"{what}: {reason or type(error).__name__}") from error


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keep bars out of the log, whose lines Replicate's client reads as the training's progress."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.convert("RGB").save(data, "JPEG", quality=_JPEG_QUALITY)
    return data.getvalue()
