"""The part of the world that a picture shows, in units that do not depend on its size.

All drawing is done in reference units, 1/128 of the scene's width, and at twice the wanted
resolution; the picture is then averaged down.  So a scene at 512 pixels, resized to 128, looks
like the same scene drawn at 128.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

REFERENCE = 128
SUPERSAMPLE = 2


@dataclass(frozen=True)
class Crop:
    """A window of a scene that was enlarged by `zoom`; its corner is in enlarged units."""

    zoom: float = 1.0
    top: float = 0.0
    left: float = 0.0


class Frame:
    """Coordinates of the pixels of a supersampled picture.

    Attributes:
        pixels: width and height of the supersampled picture.
        scale: its pixels per reference unit.
        x: horizontal coordinates, shape (1, pixels).
        y: vertical coordinates, downwards, shape (pixels, 1).
    """

    def __init__(self, size: int = REFERENCE, crop: Crop | None = None) -> None:
        crop = crop or Crop()
        self.pixels = size * SUPERSAMPLE
        self.crop = crop
        self.scale = self.pixels * crop.zoom / REFERENCE
        steps = (np.arange(self.pixels, dtype=np.float32) + 0.5) / np.float32(self.scale)
        self.x = steps[None, :] + np.float32(crop.left / crop.zoom)
        self.y = steps[:, None] + np.float32(crop.top / crop.zoom)

    @cached_property
    def empty(self) -> np.ndarray:
        """Zeros, one per pixel."""
        return np.zeros((self.pixels, self.pixels), np.float32)

    def column(self, x: float) -> float:
        """The fractional pixel column of a horizontal coordinate."""
        return (x - self.crop.left / self.crop.zoom) * self.scale

    def row(self, y: float) -> float:
        """The fractional pixel row of a vertical coordinate."""
        return (y - self.crop.top / self.crop.zoom) * self.scale

    def window(self, x: float, y: float, right: float, down: float) -> tuple[slice, slice]:
        """The pixels of a rectangle of the scene, cut at the picture's edges."""
        rows = slice(max(int(self.row(y)), 0), max(min(int(self.row(down)) + 2, self.pixels), 0))
        columns = slice(
            max(int(self.column(x)), 0), max(min(int(self.column(right)) + 2, self.pixels), 0)
        )
        return rows, columns

    def below(self, edge: np.ndarray | float) -> np.ndarray:
        """1 below a line (a height, or one height per column), 0 above, soft between."""
        return np.clip((self.y - edge) * self.scale + 0.5, 0, 1)


def average_down(picture: np.ndarray) -> np.ndarray:
    """The mean over each supersampled pixel block of a picture or mask."""
    # Sums of strided views are several times faster than a mean over a reshaped array.
    steps = range(SUPERSAMPLE)
    shifted = [picture[i::SUPERSAMPLE, j::SUPERSAMPLE] for i in steps for j in steps]
    total = shifted[0] + shifted[1]
    for part in shifted[2:]:
        total += part
    return total / np.float32(SUPERSAMPLE**2)


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """Colors from 0..1 to 0..255."""
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
