"""Where a picture is scaled and cropped to: pure geometry. Sizes are (height, width) in px."""

import math
from dataclasses import dataclass

from preprocess.config import RESOLUTION_STEP_PX

# Sizes that SDXL was trained at (arXiv:2307.01952, appendix I), (height, width) at 1024 px.
# fmt: off
_SDXL_LANDSCAPES = (
    (512, 2048), (512, 1984), (512, 1920), (512, 1856), (576, 1792), (576, 1728), (576, 1664),
    (640, 1600), (640, 1536), (704, 1472), (704, 1408), (704, 1344), (768, 1344), (768, 1280),
    (832, 1216), (832, 1152), (896, 1152), (896, 1088), (960, 1088), (960, 1024),
)
# fmt: on
_SDXL_SIZES = (
    *_SDXL_LANDSCAPES,
    (1024, 1024),
    *((width, height) for height, width in _SDXL_LANDSCAPES),
)
_SDXL_NATIVE_PX = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """How a picture becomes one of `target_size`: scale to `resized_size`, then crop."""

    resized_size: tuple[int, int]
    """Covers `target_size`, equal to it on at least one side."""
    target_size: tuple[int, int]
    scale: float
    """Resized px / original px."""

    def crop_top_left(self, center: tuple[float, float] | None = None) -> tuple[int, int]:
        """Return the crop's corner (top, left) in the resized picture.

        Args:
            center: (y, x) in the resized picture that the crop is to have in its middle, as far
                as the edges allow; None for the picture's middle.
        """
        resized_height, resized_width = self.resized_size
        height, width = self.target_size
        if center is None:
            return (resized_height - height) // 2, (resized_width - width) // 2
        top = min(max(round(center[0] - height / 2), 0), resized_height - height)
        left = min(max(round(center[1] - width / 2), 0), resized_width - width)
        return top, left


def plan_frame(original_size: tuple[int, int], target_size: tuple[int, int]) -> Frame:
    """Return the smallest scaling of `original_size` that covers `target_size`."""
    scale = max(target_size[0] / original_size[0], target_size[1] / original_size[1])
    resized = (
        max(round(original_size[0] * scale), target_size[0]),
        max(round(original_size[1] * scale), target_size[1]),
    )
    return Frame(resized_size=resized, target_size=target_size, scale=scale)


def square(resolution: int) -> tuple[int, int]:
    """Return the target size of square training pictures."""
    return resolution, resolution


def bucket(original_size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Return the SDXL size, scaled to `resolution`, whose shape is nearest to `original_size`."""
    aspect = math.log(original_size[0] / original_size[1])
    height, width = min(_SDXL_SIZES, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))
    return _scaled(height, resolution), _scaled(width, resolution)


def _scaled(side: int, resolution: int) -> int:
    steps = round(side * resolution / (_SDXL_NATIVE_PX * RESOLUTION_STEP_PX))
    return max(steps, 1) * RESOLUTION_STEP_PX
