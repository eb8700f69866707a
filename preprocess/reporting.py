"""What the user reads while the pictures are prepared, and why they could not be."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from preprocess.archive import ExtractedArchive
from preprocess.caption_files import UserCaptions
from preprocess.formats import ACCEPTED_PICTURES
from preprocess.manifest import TrainingExample
from preprocess.pictures import WorkingPicture, as_text
from preprocess.sources import Problem, SortedFiles, describe_kinds

logger = logging.getLogger(__name__)

MIN_GOOD_PICTURES = 5
_MAX_LISTED = 20


def log_found(archive_name: str, extracted: ExtractedArchive, files: SortedFiles) -> None:
    """Log what the archive holds, what of it is not used, and whether it is enough."""
    kinds = Counter(source.kind.removesuffix(" picture") for source in files.pictures)
    num_masks = len({source.mask for source in files.pictures if source.mask is not None})
    logger.info(
        "%s in %s (%s): %s%s",
        count(len(files.pictures), "picture"),
        archive_name,
        extracted.kind,
        ", ".join(f"{number} {kind}" for kind, number in kinds.most_common()),
        f"; {count(num_masks, 'mask')}" if num_masks else "",
    )
    if extracted.junk:
        logger.info("skipped %s of the operating system", count(len(extracted.junk), "file"))
    if files.unused:
        logger.warning("not used, as they are not pictures: %s", listed(files.unused))
    if len(files.pictures) < MIN_GOOD_PICTURES:
        logger.warning(
            "%s: fewer than %d leave the model nothing to tell the subject from its surroundings "
            "by; 5 to 20 pictures in varied settings work best",
            count(len(files.pictures), "picture"),
            MIN_GOOD_PICTURES,
        )


def log_captions(captions: UserCaptions, files: SortedFiles) -> None:
    """Log how many pictures have captions of the user's, and what did not match."""
    if not files.caption_files:
        return
    names = [source.file.name for source in files.pictures]
    without = [name for name in names if name not in captions.by_picture]
    logger.info("%d of %d pictures have your captions", len(names) - len(without), len(names))
    if captions.unmatched:
        logger.warning("captions without a picture: %s", listed(captions.unmatched))
    if without and captions.by_picture:
        logger.warning("pictures without a caption of yours: %s", listed(without))


def no_pictures(archive_name: str, extracted: ExtractedArchive) -> ValueError:
    """Return the error for an archive without pictures: what was found, what is accepted."""
    found = describe_kinds(file.name for file in extracted.files)
    return ValueError(
        f"input_images: {archive_name} holds no pictures (found: {found}); "
        f"accepted: {ACCEPTED_PICTURES}"
    )


def unreadable(archive_name: str, problems: Sequence[Problem]) -> ValueError:
    """Return the error that lists all `problems` at once."""
    lines = [f"{problem.name}: {problem.reason}" for problem in problems]
    return ValueError(
        f"input_images: {count(len(problems), 'file')} of {archive_name} cannot be used. "
        f"Replace or remove: {listed(lines, '; ')}"
    )


def warn_about_small(pictures: Sequence[WorkingPicture]) -> None:
    """Warn about pictures that have to grow to fill their target."""
    small = [
        f"{picture.source_name} ({as_text(picture.original_size)})"
        for picture in pictures
        if picture.frame.scale > 1
    ]
    if small:
        logger.warning(
            "%s smaller than the target and enlarged, so less sharp than the others: %s",
            count(len(small), "picture is", "pictures are"),
            listed(small),
        )


def log_added_token(names: Sequence[str], token_string: str) -> None:
    """Log for which pictures the caption lacked the token."""
    if names:
        logger.info(
            "%s lacked %s, which was put in front: %s",
            count(len(names), "caption"),
            token_string,
            listed(names),
        )


def log_examples(examples: Iterable[TrainingExample]) -> None:
    """Log each prepared picture, what was done to it, and its caption."""
    for example in examples:
        logger.info(
            "%s: %s; caption: %s",
            example.source_name,
            ", ".join(example.notes) or "used as it is",
            example.caption,
        )


def count(number: int, one: str, many: str | None = None) -> str:
    """Return "1 picture", "2 pictures"."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """Join `names`, cut after twenty with the number of those left out."""
    shown = separator.join(names[:_MAX_LISTED])
    left_out = len(names) - _MAX_LISTED
    return f"{shown} and {left_out} more" if left_out > 0 else shown
