"""Reads the captions that users put into their archives, and finds the picture of each."""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from preprocess.archive import SourceFile
from preprocess.captions import tidy
from preprocess.member_names import clean_name

_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True, kw_only=True, slots=True)
class UserCaptions:
    """The user's captions by picture, and what did not match."""

    by_picture: dict[str, str]
    """Picture name -> caption, never blank."""
    unmatched: tuple[str, ...]
    """Entries without a picture, such as "captions.csv: 'b.jpg'"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    where: str
    reference: str
    """The picture's name as the user wrote it."""
    folder: str
    """Of the caption file; references are relative to it, or to the archive's root."""
    text: str


def read_captions(files: Iterable[SourceFile], picture_names: Iterable[str]) -> UserCaptions:
    """Read caption tables and texts, and match them by path, then by name; never by order.

    Args:
        files: `captions.csv` (columns `caption`, `image_file`), `metadata.jsonl` (`file_name`,
            `text`), and `name.txt` or `name.caption` beside `name.jpg`; UTF-8, or UTF-16 with BOM.
        picture_names: Paths of the pictures in the archive.

    Raises:
        ValueError: a file cannot be read, a name fits several pictures, or a picture has two
            different captions; the text names the file and the line.
    """
    index = _PictureIndex(picture_names)
    found: dict[str, tuple[str, str]] = {}  # picture -> (text, where)
    unmatched: list[str] = []
    for file in files:
        for entry in _entries(file):
            is_table = entry.where != file.name
            names = index.find(entry) if is_table else index.beside(file.name)
            if not names:
                unmatched.append(f"{entry.where}: {entry.reference!r}" if is_table else file.name)
            for name in names if entry.text else ():
                text, where = found.setdefault(name, (entry.text, entry.where))
                if text != entry.text:
                    raise ValueError(
                        f"input_images: {name} has two captions, in {where} ({text!r}) and in "
                        f"{entry.where} ({entry.text!r}); keep one"
                    )
    return UserCaptions(
        by_picture={name: text for name, (text, _) in found.items()}, unmatched=tuple(unmatched)
    )


class _PictureIndex:
    def __init__(self, picture_names: Iterable[str]) -> None:
        self._names = sorted(set(picture_names))

    def find(self, entry: _Entry) -> list[str]:
        reference = clean_name(entry.reference)
        whole = str(PurePosixPath(entry.folder) / reference)
        file_name = PurePosixPath(reference).name
        for matches in (
            [name for name in self._names if name == whole],
            [name for name in self._names if name == reference],
            [name for name in self._names if name.casefold() == whole.casefold()],
            [name for name in self._names if name.casefold() == reference.casefold()],
            [name for name in self._names if _file_name(name) == file_name.casefold()],
            [name for name in self._names if _stem(name) == file_name.casefold()],
        ):
            if len(matches) > 1:
                raise ValueError(
                    f"input_images: {entry.where}: {entry.reference!r} could be "
                    f"{' or '.join(matches)}; write the whole path"
                )
            if matches:
                return matches
        return []

    def beside(self, text_name: str) -> list[str]:
        """Find `a.jpg` for `a.txt` or `a.jpg.txt`, in the same folder."""
        stem = str(PurePosixPath(text_name.casefold()).with_suffix(""))
        return [
            name
            for name in self._names
            if stem in (name.casefold(), str(PurePosixPath(name.casefold()).with_suffix("")))
        ]


def _file_name(name: str) -> str:
    return PurePosixPath(name).name.casefold()


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.casefold()


def _entries(file: SourceFile) -> Iterator[_Entry]:
    text = _read_text(file)
    suffix = PurePosixPath(file.name).suffix.lower()
    folder = str(PurePosixPath(file.name).parent)
    if suffix == ".csv":
        rows = _csv_rows(file.name, text)
    elif suffix == ".jsonl":
        rows = _jsonl_rows(file.name, text)
    else:
        rows = iter([(file.name, "", text)])
    for where, reference, caption in rows:
        yield _Entry(where=where, reference=reference, folder=folder, text=tidy(caption))


def _read_text(file: SourceFile) -> str:
    content = file.path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"input_images: {file.name} is not UTF-8 text (byte {error.start}); "
            "save it again with the encoding UTF-8"
        ) from error


def _csv_rows(name: str, text: str) -> Iterator[tuple[str, str, str]]:
    header = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=header.count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        first_line = next(table) if text.strip() else []
        columns = [column.strip().lower() for column in first_line]
        if "caption" not in columns or "image_file" not in columns:
            raise ValueError(
                f"input_images: {name} needs the columns caption and image_file in its first line; "
                f"found: {', '.join(columns) or 'nothing'}"
            )
        for row in table:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{name}, line {table.line_num}"
            if len(row) != len(columns):
                raise ValueError(
                    f"input_images: {where} has {len(row)} values, but the first line names "
                    f"{len(columns)}; put captions with a comma in double quotes"
                )
            record = dict(zip(columns, row, strict=True))
            yield where, record["image_file"].strip(), record["caption"]
    except csv.Error as error:
        raise ValueError(f"input_images: {name}, line {table.line_num}: {error}") from error


def _jsonl_rows(name: str, text: str) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            record: object = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"input_images: {where} is not JSON ({error})") from error
        match record:
            case {"file_name": str(file_name), "text": str(caption)}:
                yield where, file_name, caption
            case _:
                raise ValueError(
                    f"input_images: {where} needs the texts file_name and text; "
                    f"got {json.dumps(record, ensure_ascii=False)[:80]}"
                )
