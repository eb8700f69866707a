"""Uploads become what img2img and inpainting start from: upright sRGB of the right size."""

import io
import logging
import math
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pi_heif
from PIL import Image, ImageChops, ImageCms, ImageOps

from inference.request import MAX_SIZE_PX, MIN_SIZE_PX, SIZE_STEP_PX

logger = logging.getLogger(__name__)

MAX_PIXELS = 89_478_485
"""Pillow's own limit, where it warns of decompression bombs."""
LEAST_LOGGED_CROP = 1.02
"""Rounding to multiples of 8 crops a little without a word."""
LARGEST_OVER_NATIVE = 2
"""Pictures of up to this many times the base model's own area keep their size."""

_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "BMP", "TIFF", "GIF")
# What Pillow's decoders raise on damaged files.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip


def read_image(path: Path, name: str = "image") -> Image.Image:
    """Return the picture at `path` as one sees it: RGB, 8 bits, sRGB, upright, on white.

    Raises:
        ValueError: It is damaged, too large or no picture; the text names the input `name`.
    """
    color, alpha = _decode(path, name)
    if alpha is None:
        return color
    logger.info("Transparent parts of %s are put on white.", name)
    return Image.composite(color, Image.new("RGB", color.size, "white"), alpha)


def read_mask(path: Path, image_px: tuple[int, int], name: str = "mask") -> Image.Image:
    """Return the mask at `path` (L) in the size of its image: white is repainted, gray partly.

    Colors count by their brightness, transparent parts as black.

    Raises:
        ValueError: As `read_image`, or there is nothing to repaint.
    """
    color, alpha = _decode(path, name)
    mask = color.convert("L")
    if alpha is not None:
        mask = ImageChops.multiply(mask, alpha)
    if mask.getextrema() == (0, 0):
        raise ValueError(
            f"{name} has nothing to repaint: it is black or transparent everywhere. Paint white "
            "what is to be made anew"
        )
    if mask.size != image_px:
        logger.warning(
            "%s has %dx%d pixels and the image %dx%d: it is stretched to the image.",
            name, *mask.size, *image_px,
        )  # fmt: skip
        mask = mask.resize(image_px, Image.Resampling.BILINEAR)
    return mask


def output_size(
    image_px: tuple[int, int], width: int | None, height: int | None, native_size_px: int
) -> tuple[int, int]:
    """Return width and height in pixels of what is made from an image.

    As asked where both are given. With one, the other follows the image's shape. With none it is
    the image's own size, or its shape with the area of `native_size_px` squared where it is much
    larger. All are multiples of 8 from 64 to 2048.
    """
    if width and height:
        return width, height
    image_width, image_height = image_px
    if width or height:
        scale = width / image_width if width else (height or 0) / image_height
    else:
        area = image_width * image_height
        is_large = area > LARGEST_OVER_NATIVE * native_size_px**2
        scale = native_size_px / math.sqrt(area) if is_large else 1.0
        scale = max(scale, MIN_SIZE_PX / min(image_px))
        scale = min(scale, MAX_SIZE_PX / max(image_px))
    size = width or _allowed(scale * image_width), height or _allowed(scale * image_height)
    if size != image_px:
        logger.info("The image has %dx%d pixels, the output %dx%d.", *image_px, *size)
    return size


def fit(image: Image.Image, size_px: tuple[int, int]) -> Image.Image:
    """Return `image` in the size `size_px`; another shape is cropped in the middle."""
    width, height = size_px
    if abs(math.log(image.width / image.height * height / width)) > math.log(LEAST_LOGGED_CROP):
        logger.info(
            "The image's shape, %dx%d, is not the output's, %dx%d: it is cropped in the middle.",
            *image.size, width, height,
        )  # fmt: skip
    return ImageOps.fit(image, size_px, Image.Resampling.LANCZOS)


def fit_mask(mask: Image.Image, size_px: tuple[int, int]) -> Image.Image:
    """Return `mask` cropped and scaled as `fit` does its image.

    Raises:
        ValueError: Nothing to repaint is left of it.
    """
    mask = ImageOps.fit(mask, size_px, Image.Resampling.BILINEAR)
    if mask.getextrema() == (0, 0):
        raise ValueError(
            "mask is white only where the image is cropped to the output's shape: give width and "
            "height in the shape of the image, or leave them out"
        )
    return mask


def _allowed(size: float) -> int:
    return min(max(round(size / SIZE_STEP_PX) * SIZE_STEP_PX, MIN_SIZE_PX), MAX_SIZE_PX)


def _decode(path: Path, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Return upright color (RGB) and alpha (L), None where all is opaque."""
    image = _load(path, name)
    color, alpha = _split_alpha(image)
    color = _srgb(_eight_bits(color, name), image.info.get("icc_profile"), name)
    return color, None if alpha is None or alpha.getextrema() == (255, 255) else alpha


def _load(path: Path, name: str) -> Image.Image:
    """Return the file's first frame, upright, in its own mode."""
    pi_heif.register_heif_opener()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_FORMATS)
        with image:
            image.load()
            return _upright(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name} has too many pixels, at most {MAX_PIXELS // 10**6} million are accepted: "
            "make it smaller"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{name} is not a picture of an accepted kind: {', '.join(_FORMATS)}"
        ) from error
    except _DAMAGED as error:
        raise ValueError(f"{name} cannot be read, it is damaged: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGED:  # EXIF is a guest in the file; a damaged one does not spoil the picture
        return image.copy()


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    mode = image.mode
    is_keyed = "transparency" in image.info and mode in ("1", "L", "P", "RGB")
    if mode not in ("RGBA", "LA", "PA", "RGBa", "La") and not is_keyed:
        return image, None
    # of premultiplied colors Pillow turns each into its plain kind only
    image = image.convert("LA" if mode in ("La", "LA") else "RGBA")
    return image.convert("L" if image.mode == "LA" else "RGB"), image.getchannel("A")


def _eight_bits(color: Image.Image, name: str) -> Image.Image:
    """Return L, RGB, CMYK or LAB."""
    if color.mode == "F":
        raise ValueError(f"{name} has floating-point pixels: save it with 8 or 16 bits a channel")
    if color.mode.startswith("I"):  # Pillow's own convert would clip 16 bits of gray to white
        values = np.asarray(color).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"{name} has more than 16 bits a channel: save it with 8 or 16")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if color.mode in ("L", "RGB", "CMYK", "LAB"):
        return color
    return color.convert("L" if color.mode == "1" else "RGB")


def _srgb(color: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    converted = None
    if profile:
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            wanted = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            converted = ImageCms.profileToProfile(color, given, wanted, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            logger.warning("The color profile of %s cannot be used; it is ignored.", name)
    converted = converted or color.convert("RGB")
    converted.info = {}  # else what is saved later would carry the old color profile
    return converted
