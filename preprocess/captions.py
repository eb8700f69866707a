"""The rules for captions: the token is always in them, the user's own words win."""

import csv
import re
from pathlib import Path

from preprocess.manifest import Manifest

CAPTIONS_NAME = "captions.csv"


def contains_token(caption: str, token_string: str) -> bool:
    """Tell whether `token_string` is in `caption` as a whole word, in the same case."""
    return re.search(rf"(?<!\w){re.escape(token_string)}(?!\w)", caption) is not None


def with_token(caption: str, token_string: str) -> str:
    """Return `caption`, with `token_string` put in front if it is missing."""
    if contains_token(caption, token_string):
        return caption
    return f"{token_string}, {caption}" if caption else token_string


def make_caption(prefix: str, description: str, suffix: str) -> str:
    """Join the parts of a caption that is made here; `description` may be empty.

    A comma or blank that would join the prefix to a missing description is dropped.
    """
    if not description:
        prefix = prefix.rstrip(" ,")
        if suffix and suffix[0] not in " ,.;:!?":
            suffix = f", {suffix}" if prefix else suffix
    return tidy(f"{prefix}{description}{suffix}").rstrip(" ,")


def tidy(text: str) -> str:
    """Return `text` on one line, with single blanks and none at its ends."""
    return " ".join(text.split())


def save_captions(manifest: Manifest) -> Path:
    """Write `captions.csv` beside the manifest: put it, edited, into the archive next time.

    Columns are `caption` and `image_file`, the picture's path in the user's archive.
    """
    path = manifest.directory / CAPTIONS_NAME
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # Excel needs the mark
        table = csv.writer(file)
        table.writerow(("caption", "image_file"))
        table.writerows((example.caption, example.source_name) for example in manifest.examples)
    return path
