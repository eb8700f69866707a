"""Masks of what a text names, with CLIPSeg (arXiv:2112.10003)."""

# transformers leaks Any and mistypes `to` and processors
# pyright: standard

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

from preprocess.devices import pick_device

_NOTHING = ""
_HIT = 0.5


class ClipSegMasker:
    """CLIPSeg, loaded from a local directory."""

    def __init__(self, directory: Path) -> None:
        self._device = pick_device()
        self._processor: Any = CLIPSegProcessor.from_pretrained(directory)
        model: Any = CLIPSegForImageSegmentation.from_pretrained(directory)
        self._model = model.to(self._device).eval()

    def mask(self, image: Image.Image, prompt: str, temperature: float) -> Image.Image | None:
        """Return a mask (L, of the image's size) that is white where `prompt` is in `image`.

        Args:
            image: RGB, any size.
            prompt: What to find.
            temperature: Divides the logits of `prompt` and of an empty prompt, which compete.

        Returns:
            None where nothing is found, that is, no pixel is likelier `prompt` than nothing.
        """
        probabilities = against_nothing(self._logits(image, prompt), temperature)
        if probabilities.max() <= _HIT:
            return None
        # as cog-sdxl does: the surest pixel counts fully
        weights = (255 * probabilities / probabilities.max()).round().byte()
        mask = Image.fromarray(weights.cpu().numpy())
        return mask.resize(image.size, Image.Resampling.BILINEAR)

    @torch.inference_mode()
    def _logits(self, image: Image.Image, prompt: str) -> Tensor:
        inputs = self._processor(
            text=[prompt, _NOTHING],
            images=[image, image],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        return self._model(**inputs.to(self._device)).logits


def against_nothing(logits: Tensor, temperature: float) -> Tensor:
    """Return the probability of the first of two prompts: (2, H, W) -> (H, W), 0 to 1."""
    return torch.softmax(logits.float() / temperature, dim=0)[0]
