"""kohya's key names for LoRA, there and back.

`lora_unet_<path>.lora_down.weight`, `.lora_up.weight`, `.alpha`, with DoRA `.dora_scale`; the text
encoders' begin with `lora_te1_`, `lora_te2_`. The path has underscores, and sgm names for a base of
SDXL's build, diffusers' for others; both are read.
"""

import re

import torch
from torch import Tensor

from sdxl.lora import MAGNITUDE
from sdxl.weights.layer_names import from_sgm, has_sgm_numbers, to_sgm, with_dots
from sdxl.weights.layers import Network, Place
from sdxl.weights.trained import TrainedWeights

_NETWORKS: dict[str, Network] = {
    "lora_unet": "unet",
    "lycoris": "unet",
    "lora_te1": "text_encoder",
    "lora_te2": "text_encoder_2",
}
_KEY = re.compile(rf"({'|'.join(_NETWORKS)})_([^.]+)\.(.+)")
_PARTS = {"lora_A": "lora_down", "lora_B": "lora_up"}


def to_kohya_keys(weights: TrainedWeights) -> dict[str, Tensor]:
    """Rename peft's keys to kohya's, as float16 and with alpha = rank."""
    paths = {key.split(".lora_")[0] for key in weights.lora}
    return {
        **_renamed("lora_unet", weights.lora, has_sgm_numbers(paths)),
        **_renamed("lora_te1", weights.text_encoder_lora),
        **_renamed("lora_te2", weights.text_encoder_2_lora),
    }


def _renamed(prefix: str, lora: dict[str, Tensor], in_sgm: bool = False) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in lora.items():
        path, part = key.removesuffix(".weight").rsplit(".", 1)
        name = f"{prefix}_{(to_sgm(path) if in_sgm else path).replace('.', '_')}"
        if part == MAGNITUDE:
            # (out, 1) or (out, 1, 1, 1), as ComfyUI and LyCORIS have it
            shape = (-1, *[1] * (lora[f"{path}.lora_A.weight"].ndim - 1))
            renamed[f"{name}.dora_scale"] = value.half().reshape(shape)
            continue
        renamed[f"{name}.{_PARTS[part]}.weight"] = value.half()
        if part == "lora_A":
            renamed[f"{name}.alpha"] = torch.tensor(float(len(value))).half()
    return renamed


def from_kohya_key(key: str) -> Place | None:
    """Return where a tensor belongs; None if the key is not of this format."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    part = match[3].removesuffix(".weight")
    return Place(_NETWORKS[match[1]], from_sgm(with_dots(match[2])), _PARTS.get(part, part))
