from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from sdxl.concept import Concept
from sdxl.lora import add_lora
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from tests.tiny_sdxl import load_tiny_sdxl
from trainer.preview import preview_pictures, preview_prompts

PROMPTS = preview_prompts("TOK", "TOK on a wooden table")
CONCEPT = Concept.with_vectors("TOK", 2)


def test_the_prompts_are_a_trained_caption_and_the_trigger_in_new_places():
    assert PROMPTS[0] == "TOK on a wooden table"
    assert all("a photo of TOK " in prompt for prompt in PROMPTS[1:])


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
    add_lora(models.unet, 2, 2, "all", torch.Generator().manual_seed(0))
    AcceleratorState._reset_state()
    with Accelerator(cpu=True, mixed_precision="bf16").autocast():
        pictures = preview_pictures(models, PROMPTS[:1], [], 64)
    AcceleratorState._reset_state()
    assert np.asarray(pictures[0]).std() > 0
