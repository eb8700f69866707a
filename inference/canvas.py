"""From the user's picture and mask to what the denoising starts from, and back."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from sdxl.models import SDXLModels
from sdxl.pipeline import Canvas, encode_pictures, inpainting_channels


def build_canvas(
    models: SDXLModels,
    picture: Image.Image,
    mask: Image.Image | None,
    strength: float,
    tiled: bool = False,
) -> Canvas:
    """Encode a picture, and a mask.

    Args:
        models: On one device.
        picture: RGB, its sides multiples of 8.
        mask: "L", as large; white is repainted. Without it everything is.
        strength: Part of the denoising steps that is done, 0 to 1.
        tiled: Encode tile by tile, for large pictures.
    """
    vae = models.vae
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].to(vae.device)
    pixels = pixels.float() / 127.5 - 1
    latents = encode_pictures(vae, pixels, tiled)
    if mask is None and not models.is_inpainting:
        return Canvas(latents=latents, strength=strength)
    repainted = torch.ones_like(pixels[:, :1]) if mask is None else _on_cells(mask, models)
    masked_latents = None
    if models.is_inpainting:
        masked_latents = inpainting_channels(vae, pixels, repainted, tiled)[:, 1:]
    return Canvas(latents=latents, strength=strength, mask=repainted, masked_latents=masked_latents)


def keep_unmasked(
    pictures: list[Image.Image], original: Image.Image, mask: Image.Image
) -> list[Image.Image]:
    """Return `pictures` where the mask is white and `original` where it is black, pixel for pixel.

    The way through the VAE changes every pixel a little; grey mixes both.
    """
    return [Image.composite(picture, original, mask) for picture in pictures]


def _on_cells(mask: Image.Image, models: SDXLModels) -> Tensor:
    """Return the mask, (1, 1, H, W) in {0, 1}, with every latent cell that it touches whole.

    So nothing of what is to go shines through the edge of its cell.
    """
    cell = models.vae_scale_factor
    white = torch.from_numpy(np.array(mask))[None, None].to(models.vae.device) >= 128
    cells = functional.max_pool2d(white.float(), cell)
    return functional.interpolate(cells, scale_factor=cell, mode="nearest")
