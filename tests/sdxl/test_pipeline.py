from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image
from torch import Tensor, nn

from sdxl.models import SDXLModels
from sdxl.pipeline import SamplerSettings, inpainting_channels, sample
from tests.tiny_sdxl import Variant, load_tiny_sdxl, write_tiny_sdxl

PROMPTS = ["a photo of a red car", "a blue cup"]


def pictures(models: SDXLModels, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
    settings = SamplerSettings(height_px=32, width_px=48, num_inference_steps=4, guidance_scale=3.0)
    scheduler = EulerDiscreteScheduler.from_config(models.scheduler_config)
    return sample(models, scheduler, prompts, seeds, settings)


def inputs_of(unet: nn.Module) -> list[Tensor]:
    """The first argument of every call of the U-Net from now on."""
    seen: list[Tensor] = []
    unet.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].clone()))
    return seen


@pytest.mark.parametrize(
    "variant", ["sdxl", "distilled", "no_mid_block", "v_prediction", "inpainting"]
)
def test_every_kind_of_base_makes_pictures_that_depend_on_prompt_and_seed_alone(
    variant: Variant, tmp_path: Path
):
    models = load_tiny_sdxl(write_tiny_sdxl(tmp_path, variant))
    first, second = pictures(models, PROMPTS, [3, 4])
    assert first.size == (48, 32)
    assert np.asarray(first).std() > 0
    assert first.tobytes() != second.tobytes()
    # alone, from the same seed, but for the last bit of a batch of another size
    (alone,) = pictures(models, PROMPTS[1:], [4])
    difference = np.asarray(alone, dtype=int) - np.asarray(second, dtype=int)
    assert np.abs(difference).max() <= 1
    again = pictures(models, PROMPTS, [3, 4])
    assert [picture.tobytes() for picture in again] == [first.tobytes(), second.tobytes()]


def test_sampling_without_signal_at_the_end_begins_there(tmp_path: Path):
    models = load_tiny_sdxl(write_tiny_sdxl(tmp_path, "v_prediction"))
    scheduler = EulerDiscreteScheduler.from_config(models.scheduler_config)
    scheduler.set_timesteps(4)
    assert scheduler.timesteps[0] == 999
    assert scheduler.init_noise_sigma > 1000


def test_an_inpainting_base_repaints_an_empty_picture(tmp_path: Path):
    models = load_tiny_sdxl(write_tiny_sdxl(tmp_path, "inpainting"))
    seen = inputs_of(models.unet)
    pictures(models, PROMPTS, [3, 4])
    with torch.no_grad():
        grey = models.vae.encode(torch.zeros(1, 3, 32, 48)).latent_dist.mode()[0] * 0.5
    assert len(seen) == 4
    for inputs in seen:
        assert inputs.shape == (4, 9, 4, 6)  # two pictures, with and without their prompts
        assert torch.equal(inputs[:, 4], torch.ones(4, 4, 6))
        assert all(torch.allclose(row[5:], grey, atol=1e-6) for row in inputs)


def test_an_inpainting_base_that_ignores_mask_and_picture_paints_as_a_base_without(
    tmp_path: Path,
):
    inpainting = load_tiny_sdxl(write_tiny_sdxl(tmp_path / "a", "inpainting"))
    plain = load_tiny_sdxl(write_tiny_sdxl(tmp_path / "b"))
    weights = {k: v for k, v in inpainting.unet.state_dict().items() if k != "conv_in.weight"}
    conv_in = inpainting.unet.conv_in.weight
    conv_in[:, 4:] = 0.0
    plain.unet.load_state_dict({**weights, "conv_in.weight": conv_in[:, :4].contiguous()})
    for network in ("vae", "text_encoder", "text_encoder_2"):
        getattr(plain, network).load_state_dict(getattr(inpainting, network).state_dict())
    ours, theirs = pictures(inpainting, PROMPTS, [3, 4]), pictures(plain, PROMPTS, [3, 4])
    for one, other in zip(ours, theirs, strict=True):
        difference = np.asarray(one, dtype=int) - np.asarray(other, dtype=int)
        assert np.abs(difference).max() <= 1


def test_the_vae_stays_in_full_precision_when_an_inpainting_base_samples(tmp_path: Path):
    models = load_tiny_sdxl(write_tiny_sdxl(tmp_path, "inpainting"), torch.bfloat16)
    before = {name: value.clone() for name, value in models.vae.state_dict().items()}
    pictures(models, PROMPTS[:1], [3])
    assert models.vae.dtype == torch.float32
    assert all(torch.equal(value, before[name]) for name, value in models.vae.state_dict().items())


def test_what_a_mask_hides_does_not_reach_the_inpainting_channels(tiny_models: SDXLModels):
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :8, 6:32] = 1.0  # a cell is hidden if its first pixel is
    channels = inpainting_channels(tiny_models.vae, picture, mask)
    assert channels.shape == (1, 5, 4, 4)
    assert channels[0, 0].tolist() == [[0, 1, 1, 1], [0] * 4, [0] * 4, [0] * 4]
    hidden, shown = picture.clone(), picture.clone()
    hidden[..., :8, 6:32] = 0.7
    shown[..., 8:, :] = 0.7
    assert torch.equal(inpainting_channels(tiny_models.vae, hidden, mask), channels)
    assert not torch.equal(inpainting_channels(tiny_models.vae, shown, mask), channels)
