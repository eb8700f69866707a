from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from sdxl.concept import Concept
from sdxl.lora import LoraSettings, add_lora
from sdxl.lora_target import LORA_TARGET_MODULES
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from tests.tiny_sdxl import load_tiny_sdxl
from trainer.preview import preview_pictures, preview_prompts, sampling

PROMPTS = preview_prompts(None, "TOK", "TOK on a wooden table")
CONCEPT = Concept.with_vectors("TOK", 2)


def test_the_prompts_are_a_trained_caption_and_the_trigger_in_new_places():
    assert PROMPTS[0] == "TOK on a wooden table"
    assert all("a photo of TOK " in prompt for prompt in PROMPTS[1:])


def test_prompts_of_the_users_own_are_separated_by_bars():
    assert preview_prompts("TOK at night | a TOK, red||", "TOK", "x") == (
        "TOK at night",
        "a TOK, red",
    )
    with pytest.raises(ValueError, match=r"sample_prompts must be prompts separated by \|"):
        preview_prompts(" | ", "TOK", "x")


def test_the_picture_of_a_prompt_depends_on_its_place_alone(tiny_models: SDXLModels):
    prompts = [f"a ball {i}" for i in range(5)]
    several = preview_pictures(tiny_models, prompts, [], 64)
    one = preview_pictures(tiny_models, prompts[:1], [], 64)
    assert len(several) == 5
    close = np.asarray(several[0], np.int16) - np.asarray(one[0], np.int16)
    assert np.abs(close).max() <= 1  # in a batch of four the sums are rounded otherwise


def test_sampling_puts_modes_back_even_after_an_error(tiny_models: SDXLModels):
    tiny_models.unet.train()

    def fail() -> None:
        with sampling(tiny_models, torch.device("cpu")):
            assert not tiny_models.unet.training
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert tiny_models.unet.training
    assert not tiny_models.vae.training


def test_before_and_after_differ_by_what_was_trained_alone(tiny_models: SDXLModels):
    def look(concepts: list[Concept]) -> list[np.ndarray]:
        return [np.asarray(p) for p in preview_pictures(tiny_models, PROMPTS, concepts, 64)]

    before = look([])
    assert all(np.array_equal(a, b) for a, b in zip(before, look([]), strict=True))
    generator = torch.Generator().manual_seed(0)
    rows = PlaceholderEmbeddings.random(CONCEPT.placeholder_tokens, tiny_models, generator)
    rows.install(tiny_models)
    assert not any(np.array_equal(a, b) for a, b in zip(before, look([CONCEPT]), strict=True))


def test_a_half_precision_base_with_float32_lora_can_be_looked_at(tiny_sdxl_dir: Path):
    models = load_tiny_sdxl(tiny_sdxl_dir, torch.bfloat16)
    settings = LoraSettings(rank=2, alpha=2)
    generator = torch.Generator().manual_seed(0)
    add_lora(models.unet, LORA_TARGET_MODULES["all"], settings, generator)
    AcceleratorState._reset_state()
    with Accelerator(cpu=True, mixed_precision="bf16").autocast():
        pictures = preview_pictures(models, PROMPTS[:1], [], 64)
    AcceleratorState._reset_state()
    assert np.asarray(pictures[0]).std() > 0
