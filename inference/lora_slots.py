"""LoRAs beside each other in one network, exchanged without touching its layers where they fit."""

from collections.abc import Sequence

from torch import Tensor, nn

from sdxl.lora import MAGNITUDE, activate_lora, fill_lora, inject_lora, remove_lora

MIN_SLOT_RANK = 16
LoraState = dict[str, Tensor]


class LoraSlots:
    """Slot i of a network holds the i-th LoRA of a request.

    A slot has the layers of its LoRA at ranks that are a function of the LoRA's own (`slot_ranks`),
    so that a request makes the same picture whatever was in the slots before. A LoRA of the same
    layers and slot ranks is copied in; for another one all are injected anew. A slot that is not
    asked for does not act, and costs nothing but memory.
    """

    def __init__(self, network: nn.Module) -> None:
        """Manage `network`, which must have no adapters yet."""
        self._network = network
        self._held: list[tuple[LoraState, float]] = []

    def hold(self, loras: Sequence[tuple[LoraState, float]]) -> None:
        """Let exactly these LoRAs act, in this order.

        If it does not return (an error, a cancellation), `clear` must come before anything else.

        Args:
            loras: Trained matrices by the network's own module names, and the scale of each.

        Raises:
            ValueError: One does not fit the network.
        """
        pairs = zip(self._held, loras, strict=False)
        if not all(_layout(held) == _layout(state) for (held, _), (state, _) in pairs):
            self.clear()
        for i, (state, scale) in enumerate(loras):
            if i == len(self._held):
                inject_lora(self._network, state, slot_ranks(state), _adapter(i))
                self._held.append(({}, 0.0))
            held, held_scale = self._held[i]
            if held_scale != scale or not _is_same(held, state):
                fill_lora(self._network, state, _adapter(i), scale)
                self._held[i] = (state, scale)
        # DoRA's lengths would act at scale 0 too
        active = [_adapter(i) for i, (_, scale) in enumerate(loras) if scale != 0]
        activate_lora(self._network, active)

    def clear(self) -> None:
        """Give the network its own layers back, whatever was interrupted."""
        remove_lora(self._network)
        self._held = []


def slot_ranks(state: LoraState) -> dict[str, int]:
    """Return the rank of the slot of each layer, by its path: the next power of two, at least 16.

    LoRAs of usual ranks so share a few layouts; what is left over is zero.
    """
    return {
        key.removesuffix(".lora_A.weight"): max(MIN_SLOT_RANK, 1 << (len(value) - 1).bit_length())
        for key, value in state.items()
        if key.endswith(".lora_A.weight")
    }


def _is_same(one: LoraState, other: LoraState) -> bool:
    """Tell whether these are the same tensors, not only equal ones."""
    return one.keys() == other.keys() and all(one[key] is other[key] for key in one)


def _layout(state: LoraState) -> tuple[dict[str, int], bool]:
    return slot_ranks(state), any(key.endswith(MAGNITUDE) for key in state)


def _adapter(slot: int) -> str:
    return f"slot{slot}"
