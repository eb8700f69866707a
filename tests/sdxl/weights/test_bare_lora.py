"""A LoRA of the web, without embedding or trigger, on top of a base."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.fine_tunes import FineTune, FineTunes
from inference.request import GenerationRequest
from sdxl.lora import load_lora, load_text_encoder_lora
from sdxl.models import SDXLModels
from sdxl.weights.trained import TrainedWeights
from tests.inference.serving import load_generator
from tests.sdxl.weights.conftest import MakeTrained, outputs
from tests.tiny_sdxl import load_tiny_sdxl

REQUEST = GenerationRequest(prompt="a red ball", width=64, height=64, num_inference_steps=2)


@pytest.fixture
def bare(tiny_sdxl_dir: Path, make_trained: MakeTrained) -> TrainedWeights:
    return replace(make_trained(load_tiny_sdxl(tiny_sdxl_dir)), concepts=(), embeddings=None)


def test_it_acts_and_nobody_is_told_to_write_a_trigger(
    tiny_sdxl_dir: Path, bare: TrainedWeights, caplog: pytest.LogCaptureFixture
):
    generator = load_generator(tiny_sdxl_dir)
    base, with_lora = (
        np.asarray(generator.generate(REQUEST, fine_tunes)[0])
        for fine_tunes in ([], [FineTune(name="it", weights=bare)])
    )
    assert not np.array_equal(base, with_lora)
    assert "does not contain" not in caplog.text


def test_removing_it_leaves_the_base_bit_for_bit(tiny_models: SDXLModels, bare: TrainedWeights):
    before = outputs(tiny_models)
    fine_tunes = FineTunes(tiny_models)
    fine_tunes.apply([FineTune(name="it", weights=bare)])
    assert not any(map(torch.equal, outputs(tiny_models), before))
    fine_tunes.apply([])
    assert all(map(torch.equal, outputs(tiny_models), before))


def test_a_layer_of_other_outputs_or_another_kernel_is_another_bases(tiny_models: SDXLModels):
    for path, down, up in (
        ("mid_block.attentions.0.proj_in", (2, 16), (17, 2)),
        ("mid_block.resnets.0.conv1", (2, 16, 1, 1), (16, 2, 1, 1)),
    ):
        state = {
            f"{path}.lora_A.weight": torch.zeros(down),
            f"{path}.lora_B.weight": torch.zeros(up),
        }
        with pytest.raises(ValueError, match=rf"{path} .*another base model"):
            load_lora(tiny_models.unet, state)


def test_the_text_projection_can_have_lora_too(tiny_models: SDXLModels):
    before = outputs(tiny_models)
    state = {
        "text_projection.lora_A.weight": torch.ones(1, 32),
        "text_projection.lora_B.weight": torch.ones(32, 1),
    }
    load_text_encoder_lora(tiny_models.text_encoder_2, state)
    assert not torch.equal(outputs(tiny_models)[1], before[1])
