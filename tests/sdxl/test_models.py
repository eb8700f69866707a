import json
import logging
from collections.abc import Iterator
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from tests.tiny_sdxl import NATIVE_PX, Variant, load_tiny_sdxl, write_tiny_sdxl


@pytest.fixture
def diffusers_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    diffusers.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        yield caplog
    diffusers.logging.disable_propagation()


@pytest.mark.parametrize(
    "variant", ["sdxl", "distilled", "no_mid_block", "v_prediction", "inpainting"]
)
def test_every_kind_of_base_is_loaded_as_its_config_says(
    variant: Variant, tmp_path: Path, diffusers_log: pytest.LogCaptureFixture
):
    models = load_tiny_sdxl(write_tiny_sdxl(tmp_path, variant))
    assert models.vae_scale_factor == 8
    assert models.native_size_px == NATIVE_PX
    assert models.is_inpainting == (variant == "inpainting")
    assert models.unet.config["in_channels"] == (9 if variant == "inpainting" else 4)
    assert diffusers_log.messages == []


def test_a_distilled_base_keeps_the_layers_of_its_blocks(tmp_path: Path):
    unet = load_tiny_sdxl(write_tiny_sdxl(tmp_path / "a", "distilled")).unet
    layers = [
        [len(attention.transformer_blocks) for attention in block.attentions]
        for block in (*unet.down_blocks[1:], *unet.up_blocks[:2])
    ]
    assert layers == [[2, 1], [1, 2], [1, 1, 3], [2, 1, 1]]
    assert len(unet.mid_block.resnets) == 1
    assert load_tiny_sdxl(write_tiny_sdxl(tmp_path / "b", "no_mid_block")).unet.mid_block is None


def test_a_base_without_signal_at_the_end_adds_noise_that_way(tmp_path: Path):
    scheduler = load_tiny_sdxl(write_tiny_sdxl(tmp_path, "v_prediction")).noise_scheduler
    assert scheduler.config["prediction_type"] == "v_prediction"
    latents, noise = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 3.0)
    last = torch.tensor([scheduler.config["num_train_timesteps"] - 1])
    assert torch.equal(scheduler.add_noise(latents, noise, last), noise)


@pytest.mark.parametrize(
    "sampler",
    [
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        LCMScheduler,
        PNDMScheduler,
        TCDScheduler,
        UniPCMultistepScheduler,
    ],
)
def test_the_noise_schedule_is_read_from_the_config_of_any_sampler(
    sampler: type[SchedulerMixin], tmp_path: Path, diffusers_log: pytest.LogCaptureFixture
):
    write_tiny_sdxl(tmp_path)
    sampler(
        beta_start=0.001, beta_end=0.02, beta_schedule="linear", prediction_type="v_prediction"
    ).save_pretrained(tmp_path / "scheduler")
    models = load_tiny_sdxl(tmp_path)
    expected = torch.linspace(0.001, 0.02, 1000)
    assert torch.equal(models.noise_scheduler.betas, expected)
    assert models.noise_scheduler.config["prediction_type"] == "v_prediction"
    assert models.scheduler_config["prediction_type"] == "v_prediction"
    assert models.scheduler_config["beta_end"] == 0.02
    assert diffusers_log.messages == []


@pytest.mark.parametrize(
    "sampler", [EDMDPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler]
)
def test_a_base_without_a_schedule_of_betas_is_refused(
    sampler: type[SchedulerMixin], tmp_path: Path
):
    write_tiny_sdxl(tmp_path)
    sampler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match=f"scheduler is {sampler.__name__}, which has no beta_sch"):
        load_tiny_sdxl(tmp_path)


def test_a_base_with_other_input_channels_is_refused(tmp_path: Path):
    write_tiny_sdxl(tmp_path)
    config = tmp_path / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 8}))
    with pytest.raises(ValueError, match="8 input channels; text-to-image bases have 4, inpaint"):
        load_tiny_sdxl(tmp_path)


def test_a_directory_of_pickles_is_refused(tmp_path: Path):
    write_tiny_sdxl(tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"unet' has no \.safetensors file \(others are pickles"):
        load_tiny_sdxl(tmp_path)
