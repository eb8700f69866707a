"""cog-sdxl's key names for LoRA, there and back.

The attention layers have the names of diffusers' old attention processors:
`<block>.attn1.processor.to_q_lora.down.weight`. The other layers, which cog-sdxl never trained,
follow as `<module path>.lora.down.weight`; its predictor passes over them.
"""

import re

from torch import Tensor

_ATTENTION = re.compile(r"(.*\.attn[12])\.(to_q|to_k|to_v|to_out)(?:\.0)?\.lora_([AB])\.weight")
_PROCESSOR = re.compile(
    r"(.*\.attn[12])\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight"
)
_PLAIN = re.compile(r"(.*)\.lora\.(down|up)\.weight")
_TO_COG = {"A": "down", "B": "up"}
_FROM_COG = {"down": "A", "up": "B"}


def to_cog_keys(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename peft's keys to cog-sdxl's."""
    renamed = {}
    for key, value in lora.items():
        if match := _ATTENTION.fullmatch(key):
            block, layer, matrix = match.groups()
            renamed[f"{block}.processor.{layer}_lora.{_TO_COG[matrix]}.weight"] = value
        else:
            path, matrix = key.removesuffix(".weight").rsplit(".lora_", 1)
            renamed[f"{path}.lora.{_TO_COG[matrix]}.weight"] = value
    return renamed


def from_cog_keys(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename cog-sdxl's keys to peft's.

    Raises:
        ValueError: A key is of neither pattern, so the file is of another format.
    """
    renamed = {}
    for key, value in lora.items():
        if match := _PROCESSOR.fullmatch(key):
            block, layer, matrix = match.groups()
            path = f"{block}.{layer}" + (".0" if layer == "to_out" else "")
        elif match := _PLAIN.fullmatch(key):
            path, matrix = match.groups()
        else:
            raise ValueError(
                f"lora.safetensors has the key {key!r}, which is not one of cog-sdxl's "
                "(..attn1.processor.to_q_lora.down.weight): the file is of another format"
            )
        renamed[f"{path}.lora_{_FROM_COG[matrix]}.weight"] = value
    return renamed
