"""A LoRA state (see `sdxl.lora`) pair by pair, for what works on it without a model."""

from dataclasses import dataclass

from torch import Tensor

from sdxl.lora import MAGNITUDE

_DOWN, _UP = "lora_A.weight", "lora_B.weight"


@dataclass(frozen=True, slots=True)
class LoraPair:
    """The two matrices of one layer, whose update is `up down`.

    Attributes:
        down: A, (rank, in) of a linear layer, (rank, in, height, width) of a convolution.
        up: B, (out, rank) or (out, rank, 1, 1).
        magnitude: With DoRA the length of each output's weight vector, (out,) or (1, out, 1, 1).
    """

    down: Tensor
    up: Tensor
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        """Of the pair."""
        return self.down.shape[0]

    @property
    def parameters_per_rank(self) -> int:
        """How many numbers one row of A and one column of B are together."""
        return self.down[0].numel() + self.up.shape[0]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of B A and of the weight that it is added to: (out, in, ...)."""
        return (self.up.shape[0], *self.down.shape[1:])

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Return B, (out, rank), and A, (rank, in * height * width), float32."""
        return self.up.flatten(1).float(), self.down.flatten(1).float()

    def with_matrices(self, up: Tensor, down: Tensor) -> "LoraPair":
        """Return a pair of others, given as `matrices()` returns them."""
        rank = down.shape[0]
        return LoraPair(
            down.reshape(rank, *self.down.shape[1:]).contiguous(),
            up.reshape(-1, rank, *self.up.shape[2:]).contiguous(),
            self.magnitude,
        )


def split_pairs(lora: dict[str, Tensor]) -> dict[str, LoraPair]:
    """Return the pairs of a state by their layers' paths, in its order.

    Raises:
        ValueError: It has other tensors than LoRA's and DoRA's, or half a pair.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in lora.items():
        path, _, part = key.partition(".lora_")
        name = f"lora_{part}"
        if name not in (_DOWN, _UP, MAGNITUDE):
            raise ValueError(
                f"the weights have {key}, which is not a matrix of LoRA or DoRA: other methods, "
                "such as LoHa and LoKr, have no pair of small matrices to work on"
            )
        parts.setdefault(path, {})[name] = value
    for path, own in parts.items():
        if not {_DOWN, _UP} <= own.keys():
            raise ValueError(f"the weights have only {', '.join(own)} of the layer {path}")
    return {path: LoraPair(own[_DOWN], own[_UP], own.get(MAGNITUDE)) for path, own in parts.items()}


def join_pairs(layers: dict[str, LoraPair]) -> dict[str, Tensor]:
    """Return the state that `split_pairs` would split so."""
    lora = {}
    for path, layer in layers.items():
        lora[f"{path}.{_DOWN}"] = layer.down
        lora[f"{path}.{_UP}"] = layer.up
        if layer.magnitude is not None:
            lora[f"{path}.{MAGNITUDE}"] = layer.magnitude
    return lora
