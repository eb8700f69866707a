"""What trains, in groups with names, and the optimizer over them."""

import torch
from torch import nn

from sdxl.lora import lora_parameters
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import InstalledEmbeddings
from trainer.config import TrainConfig
from trainer.schedule import Group

# cog-sdxl's values
WEIGHT_DECAY: dict[Group, float] = {
    "placeholder_embeddings": 1e-3,
    "unet_lora": 1e-4,
    "unet": 1e-4,
}
# 0.99 instead of torch's 0.999: the second moment has to settle within a few hundred steps
BETAS = (0.9, 0.99)


def trainable_groups(
    models: SDXLModels, embeddings: InstalledEmbeddings, config: TrainConfig
) -> dict[Group, list[nn.Parameter]]:
    """Return the parameters that `config.method` trains; no other parameter wants a gradient."""
    groups: dict[Group, list[nn.Parameter]] = {"placeholder_embeddings": embeddings.parameters()}
    if config.method == "lora":
        groups["unet_lora"] = lora_parameters(models.unet)
    elif config.method == "full":
        groups["unet"] = list(models.unet.requires_grad_(True).parameters())
    for parameters in groups.values():
        assert parameters
        assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)
    return groups


def build_optimizer(groups: dict[Group, list[nn.Parameter]]) -> torch.optim.AdamW:
    """Return AdamW (arXiv:1711.05101) over the named groups; the loop sets each one's lr."""
    return torch.optim.AdamW(
        [
            {"name": name, "params": parameters, "weight_decay": WEIGHT_DECAY[name]}
            for name, parameters in groups.items()
        ],
        lr=0.0,
        betas=BETAS,
        fused=True,
    )
