"""The safety checker: which pictures should not be shown."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessor

logger = logging.getLogger(__name__)


class SafetyChecker:
    """CompVis' checker (a CLIP vision model against a list of concepts)."""

    def __init__(self, directory: Path, device: torch.device) -> None:
        """Load the checker from a directory with its model and its image processor's config."""
        self._processor = CLIPImageProcessor.from_pretrained(directory)
        self._model = StableDiffusionSafetyChecker.from_pretrained(directory).to(device).eval()
        self._device = device

    def allowed(
        self, pictures: Sequence[Image.Image], seeds: Sequence[int]
    ) -> list[tuple[Image.Image, int]]:
        """Return the pictures that may be shown and their seeds; the log says which may not.

        Raises:
            ValueError: None of them may be shown.
        """
        flags = self.flagged(pictures)
        pairs = list(zip(pictures, seeds, strict=True))
        allowed = [pair for pair, flag in zip(pairs, flags, strict=True) if not flag]
        if not allowed:
            raise ValueError(
                "the safety checker flagged every picture: change the prompt or the seed, or set "
                "disable_safety_checker=true"
            )
        for i, ((_, seed), flag) in enumerate(zip(pairs, flags, strict=True), start=1):
            if flag:
                logger.warning(
                    "The safety checker flagged picture %d of %d (seed %d): it is left out.",
                    i,
                    len(pictures),
                    seed,
                )
        return allowed

    def flagged(self, pictures: Sequence[Image.Image]) -> list[bool]:
        """Tell for each picture whether it should not be shown."""
        pixels = self._processor(list(pictures), return_tensors="pt").pixel_values
        blank = np.zeros((len(pictures), 1, 1, 3))  # the model blackens pictures itself: not ours
        with torch.no_grad():
            _, flags = self._model(clip_input=pixels.to(self._device), images=blank)
        return list(flags)
