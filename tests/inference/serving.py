"""Generators of pictures and trained weights for them."""

from pathlib import Path

import torch

from inference.generator import PictureGenerator
from sdxl.concept import Concept
from sdxl.lora import LoraSettings, add_lora, lora_state_dict, remove_lora
from sdxl.lora_target import LORA_TARGET_MODULES, LoraTarget
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.trained import TrainedWeights
from tests.tiny_sdxl import load_tiny_sdxl

RECORD: dict[str, object] = {"format_version": 1}


def load_generator(directory: Path, refiner: Path | None = None) -> PictureGenerator:
    """Serves the base in `directory`, which is its own refiner if there is none."""
    return PictureGenerator(load_tiny_sdxl(directory), lambda: refiner or directory)


def make_weights(
    models: SDXLModels,
    seed: int = 0,
    record: dict | None = None,
    target: LoraTarget = "attention",
    rank: int = 2,
    trigger: str = "TOK",
) -> TrainedWeights:
    """LoRA in the U-Net and two vectors for the trigger; the models are left as they were."""
    generator = torch.Generator().manual_seed(seed)
    settings = LoraSettings(rank=rank, alpha=rank)
    add_lora(models.unet, LORA_TARGET_MODULES[target], settings, generator)
    lora = lora_state_dict(models.unet)
    remove_lora(models.unet)
    return TrainedWeights(
        concepts=(Concept.with_vectors(trigger, 2),),
        embeddings=PlaceholderEmbeddings.random(("<s0>", "<s1>"), models, generator),
        lora={k: torch.randn(v.shape, generator=generator) for k, v in lora.items()},
        record=RECORD if record is None else record,
    )
