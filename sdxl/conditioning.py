"""SDXL's size and crop conditioning (arXiv:2307.01952, section 2.2)."""

import torch
from torch import Tensor


def time_ids(
    original_size: tuple[int, int], crop_top_left: tuple[int, int], target_size: tuple[int, int]
) -> Tensor:
    """Return the six numbers that tell the U-Net where its picture comes from.

    Always float32: bfloat16 would round 1219 to 1216 before the sinusoidal projection.

    Args:
        original_size: (height, width) in px before any resize.
        crop_top_left: (top, left) in px of the crop in the resized picture.
        target_size: (height, width) in px of the picture that is trained or made.

    Returns:
        (6,), float32, in the order above.
    """
    return torch.tensor([*original_size, *crop_top_left, *target_size], dtype=torch.float32)
