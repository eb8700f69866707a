"""How large the pictures of a request are."""

import logging

from inference.pictures import allowed_size, output_size
from inference.request import SIZE_STEP_PX, GenerationRequest

logger = logging.getLogger(__name__)

SDXL_SIZE_PX = 1024
# width and height; of the sizes that SDXL was trained on (arXiv:2307.01952, appendix I) the nearest
ASPECT_RATIOS: dict[str, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "5:4": (1088, 896),
    "4:3": (1152, 896),
    "3:2": (1216, 832),
    "16:9": (1344, 768),
    "21:9": (1536, 640),
    "4:5": (896, 1088),
    "3:4": (896, 1152),
    "2:3": (832, 1216),
    "9:16": (768, 1344),
    "9:21": (640, 1536),
}


def picture_size(request: GenerationRequest, native_size_px: int) -> tuple[int, int]:
    """Return width and height, multiples of 8, and log what is not as it was asked for.

    Args:
        request: Its `aspect_ratio` comes first, then `width` and `height`, then the size of its
            `image`, then the base's own size.
        native_size_px: The base's; 1024 for SDXL. Aspect ratios are scaled to it.
    """
    if request.aspect_ratio != "custom":
        width, height = ASPECT_RATIOS[request.aspect_ratio]
        scale = native_size_px / SDXL_SIZE_PX
        return _step(width * scale), _step(height * scale)
    width = _rounded("width", request.width)
    height = _rounded("height", request.height)
    if request.image is not None:
        return output_size(request.image.size, width, height, native_size_px)
    return width or native_size_px, height or native_size_px


def _rounded(name: str, asked: int | None) -> int | None:
    if asked is None:
        return None
    size = allowed_size(asked)
    if size != asked:
        logger.info("%s %d is made %d, a multiple of %d.", name, asked, size, SIZE_STEP_PX)
    return size


def _step(size: float) -> int:
    return round(size / SIZE_STEP_PX) * SIZE_STEP_PX
