"""Fine-tunes with random weights: what they show is nothing, what they take is the same."""

import re

import torch
from torch import Tensor, nn

from inference.fine_tunes import FineTune
from sdxl.concept import Concept
from sdxl.lora_target import LORA_TARGET_MODULES, LoraTarget
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.trained import TrainedWeights

_SPREAD = 0.02
_RECORD: dict[str, object] = {"format_version": 1}


def random_lora(
    network: nn.Module, target: LoraTarget, rank: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw matrices for the layers of `target`, float32, small enough to change pictures little."""
    layers = re.compile(rf".*\.(?:{LORA_TARGET_MODULES[target]})")
    lora = {}
    for path, module in network.named_modules():
        if not layers.fullmatch(path):
            continue
        outputs, inputs, *kernel = module.get_parameter("weight").shape
        ones = [1 for _ in kernel]
        down = torch.randn(rank, inputs, *kernel, generator=generator)
        up = torch.randn(outputs, rank, *ones, generator=generator)
        lora[f"{path}.lora_A.weight"] = _SPREAD * down
        lora[f"{path}.lora_B.weight"] = _SPREAD * up
    return lora


def lora_fine_tune(
    models: SDXLModels, seed: int, target: LoraTarget = "attention", rank: int = 8
) -> FineTune:
    """Return LoRA in the U-Net of the bare base `models`, and two vectors for TOK."""
    generator = torch.Generator().manual_seed(seed)
    concept = Concept.with_vectors("TOK", 2)
    weights = TrainedWeights(
        concepts=(concept,),
        embeddings=PlaceholderEmbeddings.random(concept.placeholder_tokens, models, generator),
        lora=random_lora(models.unet, target, rank, generator),
        record=_RECORD,
    )
    return FineTune(name=f"{target} {seed}", weights=weights)


def whole_fine_tune(models: SDXLModels) -> FineTune:
    """Return a whole U-Net, the bare base's a little louder, and no embeddings."""
    unet = {name: value.cpu() * (1 + _SPREAD) for name, value in models.unet.state_dict().items()}
    weights = TrainedWeights(concepts=(), embeddings=None, unet=unet, record=_RECORD)
    return FineTune(name="whole U-Net", weights=weights)
