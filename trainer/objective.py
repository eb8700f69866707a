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


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over the batch of each picture's mean over what its mask lets count.

    Each picture is divided by its own mask's sum, so that small subjects learn as fast as large.

    Args:
        values: (B, C, h, w).
        mask: (B, 1, h, w) in [0, 1], each with a positive sum; None lets everything count.

    Returns:
        A scalar.
    """
    if mask is None:
        return values.mean()
    per_cell = values.mean(dim=1, keepdim=True)
    return ((per_cell * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))).mean()


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of each value, in float32 whatever the inputs are."""
    return torch.square(prediction.float() - target.float())
