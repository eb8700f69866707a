"""What `auto` means on this machine: precision and gradient checkpointing."""

import logging

import torch

from sdxl.models import SDXLModels
from trainer.config import GradientCheckpointing, MixedPrecision, TrainConfig

logger = logging.getLogger(__name__)

# Of SDXL's U-Net with LoRA in bfloat16, what a training step keeps of a picture of a megapixel. An
# estimate from users' reports (24 GB cards hold one picture of 1024 px, and not two), not measured.
ACTIVATION_GB_PER_MEGAPIXEL = 14.0
_USABLE = 0.9  # of the device's memory: the rest is fragments and the context
_GB = 1e9


def choose_mixed_precision(setting: MixedPrecision, device: torch.device) -> str:
    """Return accelerate's name of the precision, `bf16` or `no`, and log what `auto` decides.

    Raises:
        ValueError: `bf16` on a GPU that cannot compute in it.
    """
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if setting == "bf16" and device.type == "cuda" and not has_bf16:
        raise ValueError(
            "mixed_precision=bf16 needs an NVIDIA GPU of the Ampere generation or later, and this "
            "one is older: take mixed_precision=no"
        )
    if setting != "auto":
        return setting
    chosen = "bf16" if has_bf16 else "no"
    reason = "the GPU computes in bfloat16" if has_bf16 else f"a {device.type} is exact in float32"
    logger.info("mixed_precision=auto: %s, since %s.", chosen, reason)
    return chosen


def choose_gradient_checkpointing(
    setting: GradientCheckpointing, models: SDXLModels, config: TrainConfig, device: torch.device
) -> bool:
    """Tell whether to keep only some activations and compute the others again, and log why."""
    if setting != "auto":
        return setting == "on"
    if device.type != "cuda":
        logger.info("gradient_checkpointing=auto: off, as on every %s.", device.type)
        return False
    available = torch.cuda.get_device_properties(device).total_memory / _GB
    needed = needed_gb(models, config)
    is_short = needed > _USABLE * available
    logger.info(
        "gradient_checkpointing=auto: %s, since the training needs about %.0f GB without, and the "
        "GPU has %.0f GB.",
        "on" if is_short else "off",
        needed,
        available,
    )
    return is_short


def needed_gb(models: SDXLModels, config: TrainConfig) -> float:
    """Estimate the memory of a training step without gradient checkpointing, in GB.

    Weights as they are; for `method=full` gradients and Adam's two moments in float32 as well; and
    activations in proportion to the pictures' area and the U-Net's size.
    """
    networks = (models.text_encoder, models.text_encoder_2, models.unet)
    weights = sum(p.numel() * p.element_size() for n in networks for p in n.parameters())
    unet_parameters = sum(p.numel() for p in models.unet.parameters())
    if config.method == "full":
        weights += 3 * 4 * unet_parameters
    megapixels = config.train_batch_size * (config.resolution / 1024) ** 2
    bytes_ratio = 1 if models.text_encoder.dtype == torch.bfloat16 else 2
    activations = ACTIVATION_GB_PER_MEGAPIXEL * megapixels * bytes_ratio
    return weights / _GB + activations * unet_parameters / SDXL_UNET_PARAMETERS


SDXL_UNET_PARAMETERS = 2.567e9
