"""From what files say of single layers to one LoRA state, whatever the format was.

A format's module turns each of its keys into a place: which network, which layer, which part. The
parts, under kohya's and LyCORIS' names: `lora_down`, `lora_up`, `lora_mid`, `alpha`, `dora_scale`,
`hada_*`, `lokr_*`; and `magnitude`, which is peft's `dora_scale`.
"""

import re
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sdxl.lora import MAGNITUDE
from sdxl.weights.lycoris import Matrices, loha_matrices, lokr_matrices

Network = Literal["unet", "text_encoder", "text_encoder_2"]
Layers = dict[str, dict[str, Tensor]]
"""Of one network: the parts of each layer, by diffusers' path."""

_CONVOLUTION = re.compile(r"(?:.*\.)?conv(?:1|2|_in|_out)?")
_SHORTCUT = re.compile(r".*\.conv_shortcut")
_LENGTHS = {"dora_scale", "magnitude"}
_COMMON = {"alpha", *_LENGTHS}
_KINDS: dict[str, tuple[set[str], ...]] = {
    "lora_down": ({"lora_down", "lora_up"}, {"lora_down", "lora_up", "lora_mid"}),
    "hada_w1_a": ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},),
    "lokr_": tuple(
        {*first, *second}
        for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ),
}


class Place(NamedTuple):
    """Where a tensor of a file belongs."""

    network: Network
    path: str
    part: str


def lora_state(layers: Layers) -> dict[str, Tensor]:
    """Return the LoRA of one network as `sdxl.lora` has it, float32, alpha folded in.

    Raises:
        ValueError: A layer has parts that do not fit together, or of a kind that is not known.
    """
    state: dict[str, Tensor] = {}
    for path, parts in layers.items():
        try:
            down, up, rank = _matrices(path, {name: value.float() for name, value in parts.items()})
            scale = parts["alpha"].item() / rank if "alpha" in parts else 1.0
        except RuntimeError as error:
            raise ValueError(
                f"the matrices of the layer {path} do not fit together: {error}"
            ) from error
        if down.shape[0] != up.shape[1]:
            raise ValueError(
                f"the two matrices of the layer {path} do not fit together: "
                f"{tuple(down.shape)} and {tuple(up.shape)}; the file is broken"
            )
        state[f"{path}.lora_A.weight"], matrix = _shaped(path, down, up)
        state[f"{path}.lora_B.weight"] = matrix * scale
        if _LENGTHS & parts.keys():
            state[f"{path}.{MAGNITUDE}"] = _magnitude(path, parts, len(up))
    num_magnitudes = sum(bool(_LENGTHS & parts.keys()) for parts in layers.values())
    if num_magnitudes not in (0, len(layers)):
        raise ValueError(
            f"{num_magnitudes} of {len(layers)} layers have DoRA's lengths and the others none; "
            "only files with all or none are read"
        )
    return state


def _matrices(path: str, parts: dict[str, Tensor]) -> Matrices:
    names = set(parts) - _COMMON
    kind = next((kind for kind in _KINDS if any(name.startswith(kind) for name in names)), None)
    if kind is None or names not in _KINDS[kind]:
        raise ValueError(
            f"the layer {path} has {', '.join(sorted(names)) or 'no matrices'}, which cannot be "
            "read: LoRA (lora_down and lora_up, also with lora_mid), DoRA, LoHa and LoKr without "
            "Tucker decomposition can"
        )
    if any(not 2 <= parts[name].ndim <= 4 or not parts[name].numel() for name in names):
        raise ValueError(f"the layer {path} has a matrix that is none; the file is broken")
    if kind == "hada_w1_a":
        return loha_matrices(parts)
    if kind == "lokr_":
        return lokr_matrices(parts)
    down = parts["lora_down"]
    if "lora_mid" in parts:
        # x -> down (1x1) -> mid (k x k): one convolution of k x k
        down = torch.einsum("mrhw,ri->mihw", parts["lora_mid"], down.flatten(1))
    return down, parts["lora_up"], len(down)


def _kernel(path: str) -> int:
    """Return the kernel side of a convolution of an SDXL's, 0 for a linear layer."""
    if _SHORTCUT.fullmatch(path):
        return 1
    return 3 if _CONVOLUTION.fullmatch(path) else 0


def _shaped(path: str, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices with the number of dimensions that the layer's own weight has."""
    down, up, side = down.flatten(1), up.flatten(1), _kernel(path)
    if not side:
        return down, up
    if down.shape[1] % side**2:
        raise ValueError(
            f"the layer {path} is a convolution of {side} x {side}, but its matrix of "
            f"{down.shape[1]} columns is not: the file is for another model, or broken"
        )
    return down.reshape(len(down), -1, side, side), up[:, :, None, None]


def _magnitude(path: str, parts: dict[str, Tensor], num_outputs: int) -> Tensor:
    """Return DoRA's lengths in peft's shape.

    Args:
        path: Of the layer.
        parts: `dora_scale` (out, 1, ...), or `magnitude`, which has peft's shape already.
        num_outputs: out.
    """
    is_peft = "magnitude" in parts
    lengths = parts["magnitude" if is_peft else "dora_scale"]
    if lengths.numel() != num_outputs or not (is_peft or len(lengths) == num_outputs):
        raise ValueError(
            f"DoRA's lengths of the layer {path} have the shape {tuple(lengths.shape)}: only "
            "one for each output is read (LyCORIS' wd_on_output=True)"
        )
    lengths = lengths.float().flatten()
    return lengths[None, :, None, None] if _kernel(path) else lengths
