"""The parts of an SDXL model, loaded from a diffusers directory."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "vae", "unet", "scheduler")


@dataclass(kw_only=True, slots=True)
class SDXLModels:
    """SDXL's parts under diffusers' own names. The tokenizers change when tokens are added.

    `noise_scheduler` adds noise in training; `scheduler_config` is the base's own, from which
    inference builds the sampler that was asked for.
    """

    tokenizer: CLIPTokenizer
    tokenizer_2: CLIPTokenizer
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    noise_scheduler: DDPMScheduler
    scheduler_config: dict[str, object]

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent cell and side: 8 for SDXL."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def native_size_px(self) -> int:
        """The side of the pictures the base was trained on: 1024 for SDXL, 128 for pocket."""
        return int(self.unet.config["sample_size"]) * self.vae_scale_factor

    def to(self, device: torch.device) -> None:
        """Move the four networks to `device`, wherever each of them was."""
        for network in (self.text_encoder, self.text_encoder_2, self.vae, self.unet):
            network.to(device)


def load_models(base_dir: Path, device: torch.device, dtype: torch.dtype) -> SDXLModels:
    """Load every part of the base model, frozen, straight to `device`.

    The VAE stays in float32 whatever `dtype` says: SDXL's overflows in float16 (black pictures).

    Args:
        base_dir: A diffusers directory of an SDXL model.
        device: Where the networks go.
        dtype: Of the text encoders and the U-Net.

    Raises:
        ValueError: The directory lacks a part of an SDXL model; the text names it.
    """
    missing = [part for part in PARTS if not (base_dir / part).is_dir()]
    if missing:
        raise ValueError(
            f"base_model {str(base_dir)!r} is not a diffusers SDXL directory: it has no "
            f"{', '.join(missing)} folder (needed: {', '.join(PARTS)})"
        )
    tokenizers = [CLIPTokenizer.from_pretrained(base_dir / part) for part in PARTS[:2]]
    scheduler = EulerDiscreteScheduler.from_pretrained(base_dir / "scheduler")

    def load(network: type, part: str, part_dtype: torch.dtype) -> nn.Module:
        variant = "fp16" if any((base_dir / part).glob("*.fp16.safetensors")) else None
        module = network.from_pretrained(
            base_dir / part, torch_dtype=part_dtype, variant=variant, use_safetensors=True
        )
        return module.to(device).requires_grad_(False).eval()

    return SDXLModels(
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        text_encoder=load(CLIPTextModel, "text_encoder", dtype),
        text_encoder_2=load(CLIPTextModelWithProjection, "text_encoder_2", dtype),
        vae=load(AutoencoderKL, "vae", torch.float32),
        unet=load(UNet2DConditionModel, "unet", dtype),
        noise_scheduler=DDPMScheduler.from_config(scheduler.config),
        scheduler_config=dict(scheduler.config),
    )
