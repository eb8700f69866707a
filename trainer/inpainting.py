"""Random masks for inpainting bases, which learn to repaint what a mask hides.

H, W = pixels, h, w = latent cells.
"""

import math

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sdxl.pipeline import inpainting_channels

MASKS_PER_VIEW = 8
"""How many masks each picture has: their pictures are encoded once, as the pictures are."""

WHOLE_PICTURE = 0.25
"""How often everything is hidden: of SD-XL Inpainting 0.1 "we generate synthetic masks and, in 25%
mask everything" (its model card), which keeps it a text-to-image model too."""

_COVERED = (0.10, 0.35)  # of the picture, before the last shape; a shape adds less than 0.25
_SIDES = (0.125, 0.5)  # of a rectangle, by the picture's sides
_WIDTHS = (1 / 24, 1 / 8)  # of a stroke, by the picture's shorter side


def random_mask(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return a mask of rectangles and thick strokes, as LaMa's (arXiv:2109.07161).

    Latent diffusion trains inpainting with LaMa's masks (arXiv:2112.10752, section 4.5).

    Args:
        height: px.
        width: px.
        generator: On the CPU.

    Returns:
        (1, H, W) float32 in {0, 1}; 1 is to be repainted: everything for a quarter of the masks,
        else between 10 % and 60 %.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    if uniform(0, 1) < WHOLE_PICTURE:
        return torch.ones(1, height, width)
    mask = torch.zeros(height, width)
    goal = uniform(*_COVERED)
    while mask.mean() < goal:
        if uniform(0, 1) < 0.5:
            # half of it may lie outside: borders are repainted as often as the middle
            rows, columns = int(height * uniform(*_SIDES)), int(width * uniform(*_SIDES))
            top = int(uniform(0, height)) - rows // 2
            left = int(uniform(0, width)) - columns // 2
            mask[max(0, top) : top + rows, max(0, left) : left + columns] = 1.0
        else:
            start = (uniform(0, height), uniform(0, width))
            end = (uniform(0, height), uniform(0, width))
            radius = min(height, width) * uniform(*_WIDTHS) / 2
            mask[_distance_to_segment(height, width, start, end) <= radius] = 1.0
    return mask[None]


def masked_views(view: Tensor, vae: AutoencoderKL, generator: torch.Generator) -> Tensor:
    """Return `MASKS_PER_VIEW` random masks of a picture with what they leave of it.

    Args:
        view: (3, H, W) in [-1, 1], on the CPU.
        vae: Of the base model.
        generator: On the CPU.

    Returns:
        (MASKS_PER_VIEW, 1 + 4, h, w) float32 on the VAE's device; see `inpainting_channels`.
    """
    picture = view[None].to(vae.device)
    masks = [random_mask(*view.shape[-2:], generator) for _ in range(MASKS_PER_VIEW)]
    # one at a time, which bounds memory
    return torch.cat(
        [inpainting_channels(vae, picture, mask[None].to(vae.device)) for mask in masks]
    )


def _distance_to_segment(
    height: int, width: int, start: tuple[float, float], end: tuple[float, float]
) -> Tensor:
    """Return (H, W): how far, in px, each pixel's center is from the line from start to end."""
    (top, left), (bottom, right) = start, end
    down, across = bottom - top, right - left
    y = torch.arange(height)[:, None] + 0.5 - top
    x = torch.arange(width)[None] + 0.5 - left
    along = ((y * down + x * across) / max(down**2 + across**2, math.ulp(1.0))).clamp(0, 1)
    return torch.hypot(y - along * down, x - along * across)
