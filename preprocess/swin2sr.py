"""Enlarges small pictures four times, with Swin2SR (arXiv:2209.11345), tile by tile."""

# transformers leaks Any and mistypes `to` and processors
# pyright: standard

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import Swin2SRForImageSuperResolution

from preprocess.devices import pick_device

_TILE_PX = 256
_OVERLAP_PX = 16  # seen by a tile beyond its own part, so that seams do not show


class Swin2SRUpscaler:
    """Swin2SR, loaded from a local directory."""

    def __init__(self, directory: Path, *, tile_px: int = _TILE_PX) -> None:
        self._device = pick_device()
        model: Any = Swin2SRForImageSuperResolution.from_pretrained(directory)
        self._model = model.to(self._device).eval()
        self._tile_px = tile_px
        self._window_px: int = model.config.window_size
        self.factor: int = model.config.upscale

    @torch.inference_mode()
    def upscale(self, image: Image.Image) -> Image.Image:
        """Return the RGB `image` at exactly `factor` times its width and height."""
        pixels = torch.from_numpy(np.asarray(image, np.float32) / 255)
        pixels = pixels.permute(2, 0, 1)  # (3, H, W), 0 to 1
        _, height, width = pixels.shape
        result = torch.empty(3, height * self.factor, width * self.factor)
        for top in range(0, height, self._tile_px):
            for left in range(0, width, self._tile_px):
                self._upscale_tile(pixels, result, top, left)
        values = (result.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
        return Image.fromarray(values.numpy())

    def _upscale_tile(self, pixels: Tensor, result: Tensor, top: int, left: int) -> None:
        """Write the tile at (top, left) of `pixels` (3, H, W) into `result` (3, fH, fW)."""
        _, height, width = pixels.shape
        bottom, right = min(top + self._tile_px, height), min(left + self._tile_px, width)
        seen_top, seen_left = max(top - _OVERLAP_PX, 0), max(left - _OVERLAP_PX, 0)
        seen = pixels[:, seen_top : bottom + _OVERLAP_PX, seen_left : right + _OVERLAP_PX]
        enlarged = self._run(seen)
        factor = self.factor
        inner_top, inner_left = (top - seen_top) * factor, (left - seen_left) * factor
        result[:, top * factor : bottom * factor, left * factor : right * factor] = enlarged[
            :,
            inner_top : inner_top + (bottom - top) * factor,
            inner_left : inner_left + (right - left) * factor,
        ]

    def _run(self, pixels: Tensor) -> Tensor:
        """Enlarge (3, H, W) to (3, fH, fW) and whatever its padding to whole windows becomes."""
        height, width = pixels.shape[-2:]
        padding = (0, -width % self._window_px, 0, -height % self._window_px)
        padded = functional.pad(pixels[None], padding, mode="replicate")
        return self._model(padded.to(self._device)).reconstruction[0].cpu()
