"""The parts of an SDXL model, loaded from a diffusers directory or a single file."""

import json
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

from sdxl.single_file import SingleFile

PARTS = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "vae", "unet", "scheduler")
LATENT_CHANNELS, INPAINTING_CHANNELS = 4, 9


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

    @property
    def is_inpainting(self) -> bool:
        """Whether the U-Net sees, beside the latents, a mask and the picture without its part."""
        return self.unet.config["in_channels"] == INPAINTING_CHANNELS

    def to(self, device: torch.device) -> None:
        """Move the four networks to `device`, wherever each of them was."""
        for network in (self.text_encoder, self.text_encoder_2, self.vae, self.unet):
            network.to(device)


def load_models(
    base: Path,
    device: torch.device,
    dtype: torch.dtype,
    configs: Path | None = None,
    vae: Path | None = None,
) -> SDXLModels:
    """Load every part of the base model, frozen, straight to `device`.

    The base's VAE stays in float32 whatever `dtype` says: SDXL's overflows in float16 (black
    pictures). One that is made for half precision (its config says `force_upcast: false`, as
    madebyollin/sdxl-vae-fp16-fix does) can take its place.

    Args:
        base: A diffusers directory of an SDXL model, or a single `.safetensors` file.
        device: Where the networks go.
        dtype: Of the text encoders and the U-Net.
        configs: The directory that has the configs and tokenizers; None is `base` itself. A single
            file needs it: `sdxl.downloads.resolve_configs` has SDXL's.
        vae: The directory of a VAE to take instead of the base's.

    Raises:
        ValueError: It is not, or not all of, an SDXL model, or of a kind that cannot be trained;
            the text says what is amiss.
    """
    configs = configs or base
    missing = [part for part in PARTS if not (configs / part).is_dir()]
    if missing:
        raise ValueError(
            f"base_model {str(configs)!r} is not a diffusers SDXL directory: it has no "
            f"{', '.join(missing)} folder (needed: {', '.join(PARTS)})"
        )
    single_file = None if base.is_dir() else SingleFile.open(base, configs)
    unet_config = UNet2DConditionModel.load_config(configs / "unet")
    _check_channels(base, single_file.in_channels if single_file else unet_config["in_channels"])
    schedule = _schedule_config(configs / "scheduler")
    if single_file:
        schedule |= single_file.scheduler_changes
    tokenizers = [CLIPTokenizer.from_pretrained(configs / part) for part in PARTS[:2]]

    def load(network: type, part: str, part_dtype: torch.dtype) -> nn.Module:
        if single_file:
            module = single_file.load(network, part, device, part_dtype)
        else:
            module = _load_from_directory(network, base / part, part_dtype).to(device)
        return module.requires_grad_(False).eval()

    return SDXLModels(
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        text_encoder=load(CLIPTextModel, "text_encoder", dtype),
        text_encoder_2=load(CLIPTextModelWithProjection, "text_encoder_2", dtype),
        vae=load_vae(vae, device, dtype) if vae else load(AutoencoderKL, "vae", torch.float32),
        unet=load(UNet2DConditionModel, "unet", dtype),
        noise_scheduler=DDPMScheduler.from_config(schedule),
        scheduler_config=dict(EulerDiscreteScheduler.from_config(schedule).config),
    )


def load_unet(directory: Path, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    """Load the U-Net alone of a diffusers directory, frozen."""
    unet = _load_from_directory(UNet2DConditionModel, directory / "unet", dtype)
    assert isinstance(unet, UNet2DConditionModel)
    return unet.to(device).requires_grad_(False).eval()


def load_vae(directory: Path, device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    """Load a VAE, frozen, in `dtype` if its config says that this is safe, else in float32."""
    upcast = AutoencoderKL.load_config(directory).get("force_upcast", True)
    vae = _load_from_directory(AutoencoderKL, directory, torch.float32 if upcast else dtype)
    assert isinstance(vae, AutoencoderKL)
    return vae.to(device).requires_grad_(False).eval()


def _check_channels(base: Path, channels: int) -> None:
    if channels not in (LATENT_CHANNELS, INPAINTING_CHANNELS):
        raise ValueError(
            f"base_model {str(base)!r} has a U-Net with {channels} input channels; text-to-image "
            f"bases have {LATENT_CHANNELS}, inpainting bases {INPAINTING_CHANNELS}"
        )


def _schedule_config(directory: Path) -> dict[str, object]:
    """Return the config of the base's own sampler; which one it is does not matter."""
    config = json.loads((directory / "scheduler_config.json").read_text())
    if "beta_schedule" not in config:  # EDM's and flow matching's have none
        raise ValueError(
            f"base_model's scheduler is {config.get('_class_name')}, which has no beta_schedule: "
            "bases can be trained that predict epsilon or v_prediction on a schedule of betas"
        )
    return config


def _load_from_directory(network: type, directory: Path, dtype: torch.dtype) -> nn.Module:
    if not any(directory.glob("*.safetensors")):
        raise ValueError(
            f"base_model's folder {str(directory)!r} has no .safetensors file (others are pickles, "
            "which can run any code when they are opened, and are never read)"
        )
    variant = "fp16" if any(directory.glob("*.fp16.safetensors")) else None
    return network.from_pretrained(
        directory, torch_dtype=dtype, variant=variant, use_safetensors=True
    )
