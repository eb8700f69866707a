"""Pictures become files: format, quality, and the settings inside."""

import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

logger = logging.getLogger(__name__)

OUTPUT_FORMATS = ("png", "webp", "jpg")
MAX_EXIF_BYTES = 65_533
"""What a JPEG's APP1 segment holds."""
_LONG, _UNDEFINED = 4, 7  # types of TIFF and EXIF


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSettings:
    """How pictures are saved, under the inputs' names; checked once.

    Attributes:
        output_format: One of `OUTPUT_FORMATS`.
        output_quality: 1 to 100, for webp and jpg; png is lossless.
    """

    output_format: str = "png"
    output_quality: int = 90

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            ValueError: A value is not allowed; the text names it and what is.
        """
        if self.output_format not in OUTPUT_FORMATS:
            raise ValueError(
                f"output_format must be one of {', '.join(OUTPUT_FORMATS)}, "
                f"got {self.output_format!r}"
            )
        if not 1 <= self.output_quality <= 100:
            raise ValueError(f"output_quality must be from 1 to 100, got {self.output_quality}")


def save_pictures(
    pictures: Sequence[Image.Image],
    folder: Path,
    settings: OutputSettings,
    texts: Sequence[str] | None = None,
) -> list[Path]:
    """Save RGB `pictures` as out-0, out-1, ... in `folder` and return their paths.

    Args:
        pictures: In the order of the paths.
        folder: Exists already.
        settings: Format and quality.
        texts: One for each picture, to be carried inside (`inference.metadata`); None for none.
    """
    paths = [folder / f"out-{i}.{settings.output_format}" for i in range(len(pictures))]
    for picture, path, text in zip(pictures, paths, texts or [""] * len(pictures), strict=True):
        if settings.output_format == "png":
            _save_png(picture, path, text)
        elif settings.output_format == "webp":
            picture.save(path, quality=settings.output_quality, exif=_exif(text))
        else:
            _save_jpg(picture, path, settings.output_quality, text)
    return paths


def _save_png(picture: Image.Image, path: Path, text: str) -> None:
    chunks = PngInfo()
    if text:
        chunks.add_text("parameters", text)
    picture.save(path, pnginfo=chunks)


def _save_jpg(picture: Image.Image, path: Path, quality: int, text: str) -> None:
    exif = _exif(text)
    if len(exif) > MAX_EXIF_BYTES:
        logger.warning(
            "The settings are too long for a jpg (%d bytes, %d fit): %s is saved without them; "
            "png and webp have room.",
            len(exif), MAX_EXIF_BYTES, path.name,
        )  # fmt: skip
        exif = b""
    # full color resolution: halved, as is usual, it blurs red edges and the watermark
    picture.save(path, quality=quality, subsampling=0, optimize=True, exif=exif)


def _exif(text: str) -> bytes:
    """Return EXIF with `text` as the user's comment, in the encoding that AUTOMATIC1111 reads.

    Written by hand because Pillow gives the comment the type BYTE, where the standard (EXIF 2.32,
    4.6.5) and that reader want UNDEFINED. Big-endian: a header, a directory (IFD) that points to
    the one of EXIF, which points to the comment; offsets count from the header.
    """
    if not text:
        return b""
    comment = b"UNICODE\0" + text.encode("utf-16-be")
    header = struct.pack(">2sHI", b"MM", 42, 8)
    directory = struct.pack(">HHHIII", 1, ExifTags.IFD.Exif, _LONG, 1, 26, 0)
    exif = struct.pack(">HHHIII", 1, ExifTags.Base.UserComment, _UNDEFINED, len(comment), 44, 0)
    return b"Exif\0\0" + header + directory + exif + comment
