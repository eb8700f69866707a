import pytest
import torch
from diffusers import EulerDiscreteScheduler

from inference.schedulers import SCHEDULERS, build_scheduler

# only what every base's config has
CONFIG = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
}  # fmt: skip
BY_ALPHA = ("DDIM", "PNDM", "LCM")  # the others keep noise levels in `sigmas`


@pytest.mark.parametrize("bright", [0.5, -6.0])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_sampler_arrives_where_the_model_points_however_bright(name: str, bright: float):
    config = dict(EulerDiscreteScheduler.from_config(CONFIG).config)
    scheduler = build_scheduler(name, config)
    scheduler.set_timesteps(20)
    wanted = torch.full((1, 4, 4, 4), bright)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(wanted.shape, generator=generator) * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(latents, t)
        by_alpha = name in BY_ALPHA
        alpha = scheduler.alphas_cumprod[int(t)] if by_alpha else 1 / (1 + scheduler.sigmas[i] ** 2)
        noise = (seen - alpha.sqrt() * wanted) / (1 - alpha).sqrt()
        latents = scheduler.step(noise, t, latents, return_dict=False)[0]
    assert (latents - wanted).abs().max() < 0.15 * abs(bright) + 0.1
