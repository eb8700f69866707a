"""The invisible watermark that says a model made the picture.

The 48 bits are those of Stability's and diffusers' SDXL pipelines, for the reader that they name:
the package invisible-watermark, method dwtDct, on the 8-bit pixels of a file. That reader halves
the color difference U by a Haar wavelet, cuts the result into blocks of 4x4 cells, looks for each
block's greatest cell and takes a bit from its place within a period of 36. All blocks of a bit
vote. docs/decisions/0021-watermark.md says what differs from that package's writer, and why.

Legend: R, C = rows and columns of blocks; a block is 8x8 pixels, a cell 2x2.
"""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

logger = logging.getLogger(__name__)

MESSAGE = 0b101100111110110010010000011110111011000110011110
"""Stability's, as in diffusers' StableDiffusionXLWatermarker."""
MIN_PIXELS = 256 * 256
"""Smaller pictures are refused by the reader."""

BITS = np.array([int(bit) for bit in f"{MESSAGE:048b}"])

_BLOCK_PX = 8
_CELLS = 4
_PERIOD = 36
_REST = (
    0.3  # of a block's change reaches all its cells: a lone cell is what JPEG and WebP smooth away
)
# BT.601, as OpenCV's BGR2YUV and back: U = 0.492 (B - Y) + 128
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_U_OF_BLUE = 0.492
_RGB_OF_U = np.array([0, -0.395, 2.032], dtype=np.float32)  # leaves luma and V as they are


def watermarked(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Return RGB `pictures` with the mark; those under `MIN_PIXELS` stay as they are."""
    too_small = [picture for picture in pictures if picture.width * picture.height < MIN_PIXELS]
    if too_small:
        logger.warning(
            "Pictures of %dx%d are too small for the watermark (256x256); they have none.",
            *too_small[0].size,
        )
    return [
        picture if picture.width * picture.height < MIN_PIXELS else _mark(picture)
        for picture in pictures
    ]


def _mark(picture: Image.Image) -> Image.Image:
    pixels = np.array(picture)  # (H, W, 3), 0 to 255
    num_rows, num_columns = pixels.shape[0] // _BLOCK_PX, pixels.shape[1] // _BLOCK_PX
    whole = pixels[: num_rows * _BLOCK_PX, : num_columns * _BLOCK_PX]
    rgb = whole.astype(np.float32)
    u = _U_OF_BLUE * (rgb[..., 2] - rgb @ _LUMA) + 128
    # the Haar approximation band: twice the mean of 2x2 pixels
    band = 2 * u.reshape(num_rows * _CELLS, 2, num_columns * _CELLS, 2).mean(axis=(1, 3))
    blocks = band.reshape(num_rows, _CELLS, num_columns, _CELLS).swapaxes(1, 2)
    change = _changes(blocks.reshape(num_rows * num_columns, _CELLS**2)).reshape(blocks.shape)
    change_of_u = change.swapaxes(1, 2).reshape(band.shape).repeat(2, axis=0).repeat(2, axis=1) / 2
    whole[:] = np.rint(rgb + change_of_u[..., None] * _RGB_OF_U).clip(0, 255)
    return Image.fromarray(pixels)


def _changes(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what to add to every cell, (R*C, 16), so that each block's greatest tells its bit.

    A 0 is read from the first half of a period, a 1 from the second: aim at the halves' middles.
    """
    each = np.arange(len(blocks))
    greatest = blocks[:, 1:].argmax(axis=1) + 1  # the reader leaves out the first cell
    value = blocks[each, greatest]
    aim = _PERIOD * (0.25 + 0.5 * np.resize(BITS, len(blocks)))
    change = aim + _PERIOD * np.rint((value - aim) / _PERIOD) - value
    changes = np.repeat(_REST * change[:, None], _CELLS**2, axis=1)
    changes[each, greatest] = change
    return changes.astype(np.float32)
