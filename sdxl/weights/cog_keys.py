"""cog-sdxl's key names for LoRA, there and back.

The U-Net's attention layers have the names of diffusers' old attention processors:
`<block>.attn1.processor.to_q_lora.down.weight`. What cog-sdxl never trained follows as
`<module path>.lora.down.weight`, the text encoders' with `text_encoder.` or `text_encoder_2.` in
front; DoRA's lengths end in `lora.magnitude`. cog-sdxl's predictor passes over all of those.
"""

import re

from torch import Tensor

from sdxl.lora import MAGNITUDE

TEXT_ENCODERS = ("text_encoder_2", "text_encoder")  # longest first: one is the other's start
_ATTENTION = re.compile(r"(.*\.attn[12])\.(to_q|to_k|to_v|to_out)(?:\.0)?")
_PROCESSOR = re.compile(r"(.*\.attn[12])\.processor\.(to_q|to_k|to_v|to_out)_lora\.(.*)")
_PLAIN = re.compile(r"(.*)\.lora\.(.*)")
_TO_COG = {"lora_A.weight": "down.weight", "lora_B.weight": "up.weight", MAGNITUDE: "magnitude"}
_FROM_COG = {cog: ours for ours, cog in _TO_COG.items()}


def to_cog_keys(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename peft's keys, of a U-Net or of a text encoder, to cog-sdxl's."""
    renamed = {}
    for key, value in lora.items():
        path, part = key.split(".lora_")
        part = _TO_COG[f"lora_{part}"]
        if match := _ATTENTION.fullmatch(path):
            renamed[f"{match[1]}.processor.{match[2]}_lora.{part}"] = value
        else:
            renamed[f"{path}.lora.{part}"] = value
    return renamed


def from_cog_keys(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename cog-sdxl's keys to peft's.

    Raises:
        ValueError: A key is of neither pattern, so the file is of another format.
    """
    renamed = {}
    for key, value in lora.items():
        if match := _PROCESSOR.fullmatch(key):
            path = f"{match[1]}.{match[2]}" + (".0" if match[2] == "to_out" else "")
            part = match[3]
        elif match := _PLAIN.fullmatch(key):
            path, part = match.groups()
        else:
            part = path = ""
        if part not in _FROM_COG:
            raise ValueError(
                f"lora.safetensors has the key {key!r}, which is not one of cog-sdxl's "
                "(..attn1.processor.to_q_lora.down.weight): the file is of another format"
            )
        renamed[f"{path}.{_FROM_COG[part]}"] = value
    return renamed


def join_networks(unet: dict[str, Tensor], **text_encoders: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the states of all networks into one, the text encoders' under their names."""
    joined = dict(unet)
    for name, state in text_encoders.items():
        joined |= {f"{name}.{key}": value for key, value in state.items()}
    return joined


def split_networks(joined: dict[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
    """Return the states of the U-Net, the first and the second text encoder."""
    parts: dict[str, dict[str, Tensor]] = {"unet": {}, "text_encoder": {}, "text_encoder_2": {}}
    for key, value in joined.items():
        name = next((name for name in TEXT_ENCODERS if key.startswith(f"{name}.")), "unet")
        parts[name][key.removeprefix(f"{name}.")] = value
    return tuple(parts.values())
