"""What the trainer reads: one prepared example a line, in a file beside the prepared pictures."""

import csv
import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import cast

MANIFEST_NAME = "manifest.jsonl"
CAPTIONS_NAME = "captions.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingExample:
    """One prepared picture with its caption. Sizes are (height, width) in pixels."""

    example_id: str
    """Unique within the manifest, the same for the same archive, usable as a file name."""
    image_path: str
    """Relative to the manifest's directory: an 8-bit RGB PNG of exactly `target_size`."""
    mask_path: str | None
    """Relative, an 8-bit gray PNG of `target_size`; loss weight = value / 255. None: all counts."""
    caption: str
    """Contains the token string."""
    source_name: str
    """The member's path in the user's archive."""
    original_size: tuple[int, int]
    """After EXIF rotation, before any resize."""
    crop_top_left: tuple[int, int]
    """(top, left) in pixels of the resized picture."""
    target_size: tuple[int, int]
    """Of the prepared picture."""
    notes: tuple[str, ...]
    """What was done to the picture, in the user's words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The prepared examples and the directory that holds their files."""

    directory: Path
    examples: tuple[TrainingExample, ...]

    def save(self) -> Path:
        """Write `directory/manifest.jsonl`, one example a line, and return its path."""
        path = self.directory / MANIFEST_NAME
        lines = (json.dumps(asdict(example), ensure_ascii=False) for example in self.examples)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    def captions_csv(self) -> bytes:
        """Return the captions as a table: put it, edited, into the archive next time.

        Columns are `caption` and `image_file`, the picture's path in the user's archive.
        """
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(("caption", "image_file"))
        table.writerows((example.caption, example.source_name) for example in self.examples)
        return text.getvalue().encode("utf-8-sig")  # Excel needs the mark

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """Read what `save` wrote.

        Raises:
            ValueError: there is no manifest in `directory`, or a line of it is not an example.
        """
        path = directory / MANIFEST_NAME
        if not path.is_file():
            raise ValueError(f"{directory} holds no {MANIFEST_NAME}: prepare the pictures first")
        # split("\n"): str.splitlines would also split at line separators inside captions.
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        examples = tuple(
            _parse_example(line, f"{path}, line {number}")
            for number, line in enumerate(lines, start=1)
        )
        return cls(directory=directory, examples=examples)


def _parse_example(line: str, where: str) -> TrainingExample:
    try:
        loaded: object = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    names = {field.name for field in fields(TrainingExample)}
    if not isinstance(loaded, dict):
        raise ValueError(f"{where}: expected an object, got {line[:40]!r}")
    record = cast("dict[str, object]", loaded)
    if set(record) != names:
        raise ValueError(
            f"{where}: expected the fields {', '.join(sorted(names))}; "
            f"got {', '.join(sorted(record)) or 'none'}"
        )
    mask_path = record["mask_path"]
    return TrainingExample(
        example_id=_text(record, "example_id", where),
        image_path=_text(record, "image_path", where),
        mask_path=None if mask_path is None else _text(record, "mask_path", where),
        caption=_text(record, "caption", where),
        source_name=_text(record, "source_name", where),
        original_size=_pair(record, "original_size", where),
        crop_top_left=_pair(record, "crop_top_left", where),
        target_size=_pair(record, "target_size", where),
        notes=_texts(record, "notes", where),
    )


def _text(record: dict[str, object], name: str, where: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise ValueError(f"{where}: {name} must be text, got {value!r}")
    return value


def _texts(record: dict[str, object], name: str, where: str) -> tuple[str, ...]:
    values = record[name]
    if not isinstance(values, list):
        raise ValueError(f"{where}: {name} must be a list of texts, got {values!r}")
    texts = [value for value in cast("list[object]", values) if isinstance(value, str)]
    if len(texts) != len(cast("list[object]", values)):
        raise ValueError(f"{where}: {name} must be a list of texts, got {values!r}")
    return tuple(texts)


def _pair(record: dict[str, object], name: str, where: str) -> tuple[int, int]:
    value = record[name]
    match value:
        case [int() as first, int() as second]:
            return first, second
        case _:
            raise ValueError(f"{where}: {name} must be two whole numbers, got {value!r}")
