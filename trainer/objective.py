"""The training objective as pure functions.

B = pictures, C = 4 latent channels, h, w = latent cells (1/8 of the pixels).
"""

import torch
from diffusers import DDPMScheduler
from torch import Tensor


def prediction_target(
    scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Return what the U-Net should predict, (B, C, h, w), as the base's config says.

    Args:
        scheduler: Its `prediction_type`: `epsilon` (arXiv:2006.11239) or `v_prediction`
            (arXiv:2202.00512, section 4).
        latents: (B, C, h, w), clean.
        noise: (B, C, h, w), as it was added.
        timesteps: (B,) int64.

    Raises:
        ValueError: The base predicts something else.
    """
    prediction_type = scheduler.config["prediction_type"]
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    raise ValueError(
        f"base_model predicts {prediction_type!r}; bases that predict epsilon or v_prediction can "
        "be trained"
    )


def min_snr_weights(scheduler: DDPMScheduler, timesteps: Tensor, gamma: float) -> Tensor:
    """Return each picture's loss weight, (B,) float32 (min-SNR-gamma, arXiv:2303.09556).

    With SNR = alpha_bar / (1 - alpha_bar), a loss on the noise has the weight min(SNR, gamma) / SNR
    and a loss on the velocity min(SNR, gamma) / (SNR + 1). At a terminal SNR of zero
    (arXiv:2305.08891) these are their limits, 1 and 0.

    Args:
        scheduler: Its noise schedule and `prediction_type`.
        timesteps: (B,) int64.
        gamma: Above it the SNR no longer counts; the paper takes 5.
    """
    alpha_bar = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    snr = alpha_bar / (1.0 - alpha_bar)
    if scheduler.config["prediction_type"] == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1.0)
    return gamma / snr.clamp(min=gamma)


def offset_noise(noise: Tensor, offset: float, generator: torch.Generator) -> Tensor:
    """Add N(0, offset) to each channel of `noise`, (B, C, h, w), as a whole.

    So the mean brightness of pictures is learned too (crosslabs.org, "Diffusion with offset
    noise"). The generator is on the noise's device, and is left alone by an offset of 0.
    """
    if offset == 0:
        return noise
    shift = torch.randn((*noise.shape[:2], 1, 1), generator=generator, device=noise.device)
    return noise + offset * shift


def masked_means(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return each picture's mean over what its mask lets count, (B,).

    Each is divided by its own mask's sum, so that small subjects learn as fast as large ones.

    Args:
        values: (B, C, h, w).
        mask: (B, 1, h, w) in [0, 1], each with a positive sum; None lets everything count.
    """
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    per_cell = values.mean(dim=1, keepdim=True)
    return (per_cell * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of each value, in float32 whatever the inputs are."""
    return torch.square(prediction.float() - target.float())
