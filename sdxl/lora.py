"""LoRA on the U-Net (arXiv:2106.09685), injected by peft.

A LoRA state dict here has peft's own keys: `<module path>.lora_A.weight`, (rank, in, ...), and
`<module path>.lora_B.weight`, (out, rank, ...).
"""

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from sdxl.lora_target import LORA_TARGET_MODULES, LoraTarget

ADAPTER = "default"


def add_lora(
    unet: UNet2DConditionModel,
    rank: int,
    alpha: float,
    target: LoraTarget,
    generator: torch.Generator,
) -> None:
    """Inject LoRA matrices into `unet`, float32 whatever its dtype, and let only them train.

    A starts at N(0, 1 / rank) and B at zero, so the model is unchanged at first (cog-sdxl's
    initialization).

    Args:
        unet: Changed in place.
        rank: Of every pair of matrices.
        alpha: The update is `alpha / rank * B A`.
        target: Which layers.
        generator: On the CPU, so that every device starts from the same matrices.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  # peft takes floats
        target_modules=rf".*\.(?:{LORA_TARGET_MODULES[target]})",
        init_lora_weights=False,
    )
    unet.requires_grad_(False)
    unet.add_adapter(config, adapter_name=ADAPTER)
    for name, parameter in unet.named_parameters():
        if not parameter.requires_grad:
            continue
        parameter.data = parameter.data.float()
        if ".lora_A." in name:
            start = torch.randn(parameter.shape, generator=generator) / rank
            parameter.data.copy_(start)
        else:
            parameter.data.zero_()


def lora_parameters(unet: UNet2DConditionModel) -> list[nn.Parameter]:
    """The LoRA matrices of `unet`, in its own order."""
    return [p for name, p in unet.named_parameters() if ".lora_" in name]


def lora_state_dict(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Return a copy of the LoRA matrices on the CPU, by peft's keys."""
    state = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    return {key: value.detach().clone().cpu().contiguous() for key, value in state.items()}


def load_lora(unet: UNet2DConditionModel, state: dict[str, Tensor]) -> None:
    """Inject trained matrices, whose update is B A as it stands (alpha = rank).

    Raises:
        ValueError: `state` has layers that `unet` lacks, or other shapes: another base model's.
    """
    for key, value in state.items():
        path, matrix = key.removesuffix(".weight").rsplit(".", 1)
        layer = dict(unet.named_modules()).get(path) if matrix == "lora_A" else None
        if matrix == "lora_A" and (layer is None or layer.weight.shape[1] != value.shape[1]):
            raise ValueError(
                f"the LoRA has weights for the layer {path} with {value.shape[1]} inputs, which "
                "this base model does not have: it was trained on another base model"
            )
    # in the U-Net's own dtype: outside of autocast float32 matrices would not meet half activations
    state = {key: value.to(unet.dtype) for key, value in state.items()}
    unet.load_lora_adapter(state, prefix=None, adapter_name=ADAPTER)


def set_lora_scale(unet: UNet2DConditionModel, scale: float) -> None:
    """Let the injected LoRA act at `scale`: 0 is the base model, 1 is as trained."""
    unet.set_adapters([ADAPTER], weights=[scale])


def remove_lora(unet: UNet2DConditionModel) -> None:
    """Take the LoRA matrices out again; the base's own weights were never touched."""
    unet.unload_lora()
