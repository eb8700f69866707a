"""Sorts the files of an archive: pictures, their masks, caption files, and the rest."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from preprocess.archive import SourceFile
from preprocess.formats import (
    OTHER_PICTURE_SUFFIXES,
    PICTURE_SUFFIXES,
    has_suffix,
    is_picture,
    sniff,
)
from preprocess.member_names import slug, sort_key

MASK_ENDING = "-mask"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A picture that cannot be trained on."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureSource:
    """A picture of the user's, before it is decoded."""

    example_id: str
    file: SourceFile
    kind: str
    """From `formats.sniff`, such as "JPEG picture"."""
    mask: SourceFile | None
    """The user's `name-mask.png` beside `name.jpg`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SortedFiles:
    """The files of an archive, each in exactly one of the four groups (or a mask)."""

    pictures: tuple[PictureSource, ...]
    """In the order in which people count: `2.jpg` before `10.jpg`."""
    caption_files: tuple[SourceFile, ...]
    unused: tuple[str, ...]
    """Names of files that are neither."""
    problems: tuple[Problem, ...]
    """Pictures that cannot be read, as far as can be told without decoding."""


def sort_files(files: Iterable[SourceFile]) -> SortedFiles:
    """Sort the `files` of an archive by what they are for."""
    pictures: list[tuple[SourceFile, str]] = []
    caption_files: list[SourceFile] = []
    unused: list[str] = []
    problems: list[Problem] = []
    for file in sorted(files, key=lambda file: (sort_key(file.name), file.name)):
        kind = sniff(file.path)
        if has_suffix(file.name, OTHER_PICTURE_SUFFIXES):
            suffix = PurePosixPath(file.name).suffix.lower()
            reason = f"{suffix} is not accepted: save it as JPEG or PNG"
            problems.append(Problem(name=file.name, reason=reason))
        elif is_caption_file(file.name):
            caption_files.append(file)
        elif is_picture(kind):
            pictures.append((file, kind))
        elif has_suffix(file.name, PICTURE_SUFFIXES):
            reason = f"it holds no picture ({kind})"
            problems.append(Problem(name=file.name, reason=reason))
        else:
            unused.append(file.name)
    return SortedFiles(
        pictures=_pair_with_masks(pictures),
        caption_files=tuple(caption_files),
        unused=tuple(unused),
        problems=tuple(problems),
    )


def is_caption_file(name: str) -> bool:
    """Tell whether the member `name` holds captions: a table or a text beside a picture."""
    path = PurePosixPath(name.lower())
    return (
        path.suffix in (".txt", ".caption")
        or path.name == "metadata.jsonl"
        or (path.suffix == ".csv" and "caption" in path.stem)
    )


def describe_kinds(names: Iterable[str]) -> str:
    """Count `names` by ending: "2 .txt, 1 .mp4"; "nothing" for none."""
    counts: dict[str, int] = {}
    for name in names:
        suffix = PurePosixPath(name).suffix.lower() or "without ending"
        counts[suffix] = counts.get(suffix, 0) + 1
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items())) or "nothing"


def _pair_with_masks(pictures: list[tuple[SourceFile, str]]) -> tuple[PictureSource, ...]:
    stems = {_stem(file.name) for file, _ in pictures}
    masks = {
        _stem(file.name).removesuffix(MASK_ENDING): file
        for file, _ in pictures
        if _is_mask(_stem(file.name), stems)
    }
    shown = [(file, kind) for file, kind in pictures if not _is_mask(_stem(file.name), stems)]
    digits = max(2, len(str(len(shown))))
    return tuple(
        PictureSource(
            example_id=f"{number:0{digits}d}-{slug(file.name)}".rstrip("-"),
            file=file,
            kind=kind,
            mask=masks.get(_stem(file.name)),
        )
        for number, (file, kind) in enumerate(shown, start=1)
    )


def _is_mask(stem: str, stems: set[str]) -> bool:
    """A mask is named after a picture that is no mask itself: carnival-mask.jpg alone is none."""
    partner = stem.removesuffix(MASK_ENDING)
    return partner != stem and partner in stems and not _is_mask(partner, stems)


def _stem(name: str) -> str:
    """Return folder and stem, without regard to case."""
    return str(PurePosixPath(name.casefold()).with_suffix(""))
