"""Names of archive members: made readable, refused when they point outside, skipped when junk."""

import re
import unicodedata
from pathlib import PurePosixPath

_JUNK_FOLDERS = frozenset(("__macosx",))
_JUNK_FILES = frozenset((".ds_store", "thumbs.db", "desktop.ini"))
_DRIVE = re.compile(r"[A-Za-z]:/")


def clean_name(raw: str) -> str:
    """Return a member's name as its user would write it: `/` between folders, composed letters.

    Bytes that are no UTF-8 (`surrogateescape`) are read as Latin-1; signs that do not print
    become `?`, so that a name cannot forge lines in a log.
    """
    try:
        text = raw.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeDecodeError:
        text = raw.encode("utf-8", "surrogateescape").decode("latin-1")
    text = unicodedata.normalize("NFC", text.replace("\\", "/"))
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    while text.startswith("./"):
        text = text[2:]
    return text


def decode_zip_name(name: str, *, is_utf8: bool) -> str:
    """Undo zipfile's cp437 for the packers that write UTF-8 without setting the flag (macOS).

    Args:
        name: As zipfile gives it.
        is_utf8: Whether the member's UTF-8 flag is set.
    """
    if is_utf8:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return name


def escapes(name: str) -> bool:
    """Tell whether a cleaned `name` is absolute or climbs out of the archive with `..`."""
    return name.startswith("/") or bool(_DRIVE.match(name)) or ".." in name.split("/")


def is_junk(name: str) -> bool:
    """Tell whether `name` is a file that macOS or Windows leaves behind, not the user's."""
    *folders, file_name = name.lower().split("/")
    return (
        not _JUNK_FOLDERS.isdisjoint(folders)
        or file_name.startswith("._")
        or file_name in _JUNK_FILES
    )


def sort_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Order names as people count: `2.jpg` before `10.jpg`, whatever the archive's order was."""
    pieces = re.split(r"(\d+)", name.casefold())
    return tuple(
        (0, int(piece), "") if piece.isdecimal() and piece.isascii() else (1, 0, piece)
        for piece in pieces
    )


def slug(name: str) -> str:
    """Return the stem of `name` in file-name-safe ASCII, at most 40 signs; may be empty."""
    decomposed = unicodedata.normalize("NFKD", PurePosixPath(name).stem)
    ascii_only = decomposed.encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:40].strip("-")
