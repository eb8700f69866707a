"""Describes pictures in a sentence, with BLIP (arXiv:2201.12086) or Florence-2 (arXiv:2311.06242).

Both decode with beam search, so the same pictures give the same captions.
"""

# transformers leaks Any and mistypes `to` and processors
# pyright: standard

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from transformers import (
    BlipForConditionalGeneration,
    BlipProcessor,
    Florence2ForConditionalGeneration,
    Florence2Processor,
)

from preprocess.captions import tidy
from preprocess.config import CaptionModel
from preprocess.devices import pick_device

_NUM_BEAMS = 4
_MAX_NEW_TOKENS = 60  # SDXL reads 77, and prefix and suffix need some
_FLORENCE2_TASK = "<DETAILED_CAPTION>"


class Captioner(Protocol):
    """Describes pictures."""

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """Return one line of text for each of the RGB `images`, which go in as one batch."""
        ...


class BlipCaptioner:
    """BLIP, loaded from a local directory."""

    def __init__(self, directory: Path) -> None:
        self._device = pick_device()
        self._processor: Any = BlipProcessor.from_pretrained(directory)
        model: Any = BlipForConditionalGeneration.from_pretrained(directory)
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """Return one line of text for each of the RGB `images`, which go in as one batch."""
        inputs = self._processor(images=list(images), return_tensors="pt").to(self._device)
        tokens = self._model.generate(
            **inputs, num_beams=_NUM_BEAMS, do_sample=False, max_new_tokens=_MAX_NEW_TOKENS
        )
        return [
            tidy(text) for text in self._processor.batch_decode(tokens, skip_special_tokens=True)
        ]


class Florence2Captioner:
    """Florence-2, loaded from a local directory."""

    def __init__(self, directory: Path) -> None:
        self._device = pick_device()
        self._processor: Any = Florence2Processor.from_pretrained(directory)
        model: Any = Florence2ForConditionalGeneration.from_pretrained(directory)
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """Return one line of text for each of the RGB `images`, which go in as one batch."""
        inputs = self._processor(
            text=[_FLORENCE2_TASK] * len(images), images=list(images), return_tensors="pt"
        ).to(self._device)
        tokens = self._model.generate(
            **inputs, num_beams=_NUM_BEAMS, do_sample=False, max_new_tokens=_MAX_NEW_TOKENS
        )
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [whole_sentences(tidy(text)) for text in texts]


def load_captioner(name: CaptionModel, directory: Path) -> Captioner:
    """Load the captioner called `name` from `directory`."""
    return BlipCaptioner(directory) if name == "blip" else Florence2Captioner(directory)


def whole_sentences(text: str) -> str:
    """Drop an unfinished last sentence and the last period, unless nothing would be left."""
    if text.endswith("."):
        return text[:-1]
    finished, _, _ = text.rpartition(". ")
    return finished or text
