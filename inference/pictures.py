"""Uploads become what img2img and inpainting start from: upright sRGB of the right size."""

import logging
import math
from pathlib import Path

from PIL import Image, ImageOps

from inference.request import MAX_SIZE_PX, MIN_SIZE_PX, SIZE_STEP_PX
from sdxl.decoding import UnreadablePictureError, decode_mask, decode_picture, own_pixel_limit

logger = logging.getLogger(__name__)

LEAST_LOGGED_CROP = 1.02
"""Rounding to multiples of 8 crops a little without a word."""
LARGEST_OVER_NATIVE = 2
"""Pictures of up to this many times the base model's own area keep their size."""


def read_image(path: Path) -> Image.Image:
    """Return the picture at `path` as one sees it: RGB, 8 bits, sRGB, upright, on white.

    Raises:
        ValueError: It is damaged, too large or no picture.
    """
    try:
        with own_pixel_limit():
            decoded = decode_picture(path)
    except UnreadablePictureError as error:
        raise ValueError(f"image cannot be used: {error}") from error
    for note in decoded.notes:
        logger.info("image: %s.", note)
    return decoded.pixels


def read_mask(path: Path, image_px: tuple[int, int]) -> Image.Image:
    """Return the mask at `path` (L) in the size of its image: white is repainted, gray partly.

    Colors count by their brightness, transparent parts as black.

    Raises:
        ValueError: As `read_image`, or there is nothing to repaint.
    """
    try:
        with own_pixel_limit():
            mask = decode_mask(path)
    except UnreadablePictureError as error:
        raise ValueError(f"mask cannot be used: {error}") from error
    if mask.getextrema() == (0, 0):
        raise ValueError(
            "mask has nothing to repaint: it is black everywhere. Paint white what is to be made "
            "anew"
        )
    if mask.size != image_px:
        logger.warning(
            "mask has %dx%d pixels and image %dx%d: it is stretched to the image.",
            *(*mask.size, *image_px),
        )
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
    size = width or allowed_size(scale * image_width), height or allowed_size(scale * image_height)
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


def allowed_size(size: float) -> int:
    """Return the nearest side that pictures may have: a multiple of 8 from 64 to 2048."""
    return min(max(round(size / SIZE_STEP_PX) * SIZE_STEP_PX, MIN_SIZE_PX), MAX_SIZE_PX)
