"""Weights of every kind that a training gives, for the tests of their formats."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdxl.concept import read_concepts
from sdxl.lora import (
    LoraSettings,
    add_lora,
    lora_state_dict,
    remove_lora,
    text_encoder_lora_state,
)
from sdxl.lora_target import LORA_TARGET_MODULES, TEXT_ENCODER_MODULES
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.prompt import encode_prompts
from sdxl.weights.trained import TrainedWeights
from tests.tiny_sdxl import load_tiny_sdxl, write_tiny_sdxl

RECORD: dict[str, object] = {
    "format_version": 1,
    "base_model": "pocket",
    "seed": 3,
    "settings": {"resolution": 768, "lora_lr": 1e-4, "optimizer": "adamw", "max_train_steps": 2},
    "losses": [0.5, 0.25],
}
MakeTrained = Callable[..., TrainedWeights]


@pytest.fixture(scope="session")
def two_layers_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base of two layers a block, as SDXL itself has."""
    return write_tiny_sdxl(tmp_path_factory.mktemp("two_layers"), "distilled")


@pytest.fixture
def two_layers(two_layers_dir: Path) -> SDXLModels:
    return load_tiny_sdxl(two_layers_dir)


@pytest.fixture
def make_trained() -> MakeTrained:
    return train


def train(models: SDXLModels, use_dora: bool = False, alpha: float = 6.0) -> TrainedWeights:
    """Make weights for `models`, rank 2, trained at `alpha`; the models are left as they were."""
    generator = torch.Generator().manual_seed(0)
    settings = LoraSettings(rank=2, alpha=alpha, use_dora=use_dora)

    def state(network: torch.nn.Module, layers: str, read: Callable) -> dict[str, Tensor]:
        add_lora(network, layers, settings, generator)
        for name, parameter in network.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        trained = read(network)
        remove_lora(network)
        return trained

    text = [
        state(encoder, TEXT_ENCODER_MODULES, text_encoder_lora_state)
        for encoder in (models.text_encoder, models.text_encoder_2)
    ]
    return TrainedWeights(
        concepts=read_concepts("TOK", "TOK:2,HAT:1"),
        embeddings=PlaceholderEmbeddings.random(("<s0>", "<s1>", "<s2>"), models, generator),
        lora=state(models.unet, LORA_TARGET_MODULES["all"], lora_state_dict),
        text_encoder_lora=text[0],
        text_encoder_2_lora=text[1],
        record=RECORD,
    )


def outputs(models: SDXLModels, prompt: str = "a photo of a red ball") -> list[Tensor]:
    """What both text encoders and the U-Net make of a prompt."""
    text = encode_prompts([prompt], models)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        prediction = models.unet(
            torch.randn(1, 4, 4, 4, generator=generator),
            torch.tensor([500]),
            text.prompt_embeds,
            added_cond_kwargs={
                "text_embeds": text.pooled_prompt_embeds,
                "time_ids": torch.full((1, 6), 32.0),
            },
        ).sample
    return [text.prompt_embeds, text.pooled_prompt_embeds, prediction]
