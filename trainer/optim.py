"""What trains, in groups with names, and an optimizer for each."""

import torch
from torch import nn

from sdxl.lora import lora_parameters
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import InstalledEmbeddings
from trainer.config import Optimizer, TrainConfig
from trainer.schedule import Group

# cog-sdxl's values, but for the embeddings: their norm is kept, so there is nothing to decay
WEIGHT_DECAY: dict[Group, float] = {
    "placeholder_embeddings": 0.0,
    "text_encoder_lora": 1e-4,
    "unet_lora": 1e-4,
    "unet": 1e-4,
}
# 0.99 instead of torch's 0.999: the second moment has to settle within a few hundred steps
BETAS = (0.9, 0.99)


def trainable_groups(
    models: SDXLModels, embeddings: InstalledEmbeddings, config: TrainConfig
) -> dict[Group, list[nn.Parameter]]:
    """Return the parameters that `config` trains; no other parameter wants a gradient."""
    groups: dict[Group, list[nn.Parameter]] = {"placeholder_embeddings": embeddings.parameters()}
    if config.text_encoder_lr:
        groups["text_encoder_lora"] = [
            parameter
            for encoder in (models.text_encoder, models.text_encoder_2)
            for parameter in lora_parameters(encoder)
        ]
    if config.trains_lora:
        groups["unet_lora"] = lora_parameters(models.unet)
    elif config.method == "full":
        groups["unet"] = list(models.unet.requires_grad_(True).parameters())
    for parameters in groups.values():
        assert parameters
        assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)
    return groups


def build_optimizers(
    groups: dict[Group, list[nn.Parameter]], kind: Optimizer
) -> dict[Group, torch.optim.Optimizer]:
    """Return an optimizer for each group; the loop sets its learning rate at every step.

    One for each, since Prodigy estimates one step size for all that it is given, and those of
    embeddings and matrices are far apart.
    """
    build = {"adamw": _adamw, "adamw8bit": _adamw8bit, "prodigy": _prodigy}[kind]
    return {name: build(parameters, WEIGHT_DECAY[name]) for name, parameters in groups.items()}


def take_step(optimizer: torch.optim.Optimizer, lr: float, max_grad_norm: float) -> None:
    """Clip the gradients to `max_grad_norm` together (0 does not), step at `lr`, clear them."""
    for group in optimizer.param_groups:
        if max_grad_norm:
            torch.nn.utils.clip_grad_norm_(group["params"], max_grad_norm)
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def check_optimizer(kind: Optimizer, device: torch.device) -> None:
    """See that the optimizer can run, before anything is loaded.

    Raises:
        ValueError: `adamw8bit` without an NVIDIA GPU.
    """
    if kind == "adamw8bit" and device.type != "cuda":
        raise ValueError(
            f"optimizer=adamw8bit runs on an NVIDIA GPU, and this machine trains on {device.type}: "
            "take optimizer=adamw"
        )


def _adamw(parameters: list[nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101)."""
    return torch.optim.AdamW(parameters, lr=0.0, betas=BETAS, weight_decay=weight_decay, fused=True)


def _adamw8bit(parameters: list[nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    """AdamW whose moments take a byte each (arXiv:2110.02861)."""
    from bitsandbytes.optim import AdamW8bit  # slow to import, and of use on a GPU alone

    return AdamW8bit(parameters, lr=0.0, betas=BETAS, weight_decay=weight_decay)


def _prodigy(parameters: list[nn.Parameter], weight_decay: float) -> torch.optim.Optimizer:
    """Prodigy (arXiv:2306.06101) with the settings that its authors advise for diffusion models."""
    from prodigyopt import Prodigy

    # the decay goes in by the group: as an argument Prodigy prints a line about it
    return Prodigy(
        [{"params": parameters, "weight_decay": weight_decay}],
        lr=1.0,
        betas=BETAS,
        decouple=True,
        use_bias_correction=True,
        safeguard_warmup=True,
    )
