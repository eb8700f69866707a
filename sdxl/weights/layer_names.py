"""Names of an SDXL's layers: diffusers' with dots, those with underscores, Stability's (sgm).

Stability's code, and kohya after it, numbers the layers of all blocks through. With SDXL's two
layers a block (i = block, j = layer in it):

    down_blocks.i.attentions.j     input_blocks.{3 i + j + 1}.1
    down_blocks.i.downsamplers.0   input_blocks.{3 i + 3}.0.op
    up_blocks.i.attentions.j       output_blocks.{3 i + j}.1
    up_blocks.i.upsamplers.0       output_blocks.{3 i + 2}.2

and a resnet has 0 in the last place.
"""

import re
from collections.abc import Iterable

_STRIDE = 3  # numbers that a block of two layers takes

_WORDS = (
    *("down_blocks", "mid_block", "up_blocks", "transformer_blocks"),
    *("input_blocks", "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers"),
    *("to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out", "conv_in", "conv_out"),
    *("conv_shortcut", "skip_connection", "time_emb_proj", "time_embedding", "add_embedding"),
    *("time_embed", "label_emb", "linear_1", "linear_2"),
    *("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj", "text_projection"),
)
_LONGEST_FIRST = "|".join(sorted(_WORDS, key=len, reverse=True))
_WORD = re.compile(rf"({_LONGEST_FIRST}|[^_]+)(?:_|$)")

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(attentions|resnets)\.(\d+)\.(.*)")
_SAMPLER = re.compile(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv")
_MIDDLE = re.compile(r"mid_block\.(attentions|resnets)\.(\d+)\.(.*)")
_SGM_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.*)")
_SGM_MIDDLE = re.compile(r"middle_block\.(\d+)\.(.*)")
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET_BACK = {sgm: ours for ours, sgm in _RESNET.items()}
_OUTSIDE_BACK = {sgm: ours for ours, sgm in _OUTSIDE.items()}


def with_dots(name: str) -> str:
    """Return a layer's path from its name with underscores, of either naming.

    `down_blocks_1_attentions_0_proj_in` is `down_blocks.1.attentions.0.proj_in`: the words with an
    underscore of their own are known.
    """
    return ".".join(_WORD.findall(name))


def has_sgm_numbers(paths: Iterable[str]) -> bool:
    """Tell whether the layers show SDXL's two layers a block, which the sgm numbers count.

    Those of a base with more or fewer (KOALA has one), and of a LoRA of so few layers that it
    cannot be told, have diffusers' names alone.
    """
    numbers = {"down": -1, "up": -1}
    for path in paths:
        if match := _BLOCK.fullmatch(path):
            numbers[match[1]] = max(numbers[match[1]], int(match[4]))
    down, up = numbers["down"], numbers["up"]
    return down <= 1 and up <= 2 and (down == 1 or up == 2)


def to_sgm(path: str) -> str:
    """Return the sgm name of the layer at diffusers' `path`, in a base of two layers a block."""
    if match := _SAMPLER.fullmatch(path):
        number = _STRIDE * int(match[2])
        if match[1] == "down":
            return f"input_blocks.{number + _STRIDE}.0.op"
        return f"output_blocks.{number + _STRIDE - 1}.2.conv"
    if match := _MIDDLE.fullmatch(path):
        is_attention = match[1] == "attentions"
        place = 1 if is_attention else 2 * int(match[2])
        return f"middle_block.{place}.{match[3] if is_attention else _RESNET[match[3]]}"
    if match := _BLOCK.fullmatch(path):
        side, block, kind, layer, rest = match.groups()
        number = _STRIDE * int(block) + int(layer) + (side == "down")
        blocks = "input_blocks" if side == "down" else "output_blocks"
        if kind == "attentions":
            return f"{blocks}.{number}.1.{rest}"
        return f"{blocks}.{number}.0.{_RESNET[rest]}"
    return _OUTSIDE.get(path, path)


def from_sgm(path: str) -> str:
    """Return diffusers' path of a layer; what is no sgm name is it already."""
    if path in _OUTSIDE_BACK:
        return _OUTSIDE_BACK[path]
    if match := _SGM_MIDDLE.fullmatch(path):
        place, rest = int(match[1]), match[2]
        if place == 1:
            return f"mid_block.attentions.0.{rest}"
        return f"mid_block.resnets.{place // 2}.{_RESNET_BACK.get(rest, rest)}"
    if match := _SGM_BLOCK.fullmatch(path):
        side, number, place, rest = match.groups()
        block, layer = divmod(int(number) - (side == "input"), _STRIDE)
        blocks = "down_blocks" if side == "input" else "up_blocks"
        if rest == "op":
            return f"{blocks}.{block}.downsamplers.0.conv"
        if rest == "conv":
            return f"{blocks}.{block}.upsamplers.0.conv"
        if place == "1":
            return f"{blocks}.{block}.attentions.{layer}.{rest}"
        return f"{blocks}.{block}.resnets.{layer}.{_RESNET_BACK.get(rest, rest)}"
    return path
