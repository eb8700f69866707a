"""Trained weights by their address: downloaded once, read once."""

import os
import re
from collections import OrderedDict
from pathlib import Path

from inference.fine_tunes import FineTune
from inference.metadata import shown_source
from inference.request import MAX_LORA_SCALE, MIN_LORA_SCALE
from sdxl.downloads import fetch_weights
from sdxl.weights.reading import read_weights
from sdxl.weights.trained import TrainedWeights

MAX_BYTES = 4 << 30
_SEPARATOR = re.compile(r"(?<!;base64),")


class WeightsCache:
    """The fine-tunes that requests ask for; those used last stay in memory."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        """Keep up to `max_bytes` of tensors, and always the one that was asked for last."""
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[object, ...], TrainedWeights] = OrderedDict()

    def load(self, address: str, input_name: str) -> TrainedWeights:
        """Return the weights at an address; while they are kept, the same object.

        Args:
            address: A file, folder, http(s) or data: address, or a Hugging Face repository.
            input_name: For error messages.

        Raises:
            ValueError: They cannot be had, or are no weights for SDXL.
        """
        try:
            path = fetch_weights(address)
            identity = _identity(path)
            weights = self._kept.pop(identity, None) or read_weights(path)
        except ValueError as error:
            raise ValueError(f"{input_name} {source_name(address)}: {error}") from error
        self._kept[identity] = weights
        while len(self._kept) > 1 and self._bytes() > self._max_bytes:
            self._kept.popitem(last=False)
        return weights

    def load_extra(self, extra_lora: str) -> list[FineTune]:
        """Return the fine-tunes of the input `extra_lora`, in its order.

        Args:
            extra_lora: Addresses with a comma between them, each with a scale behind a colon if it
                is not 1: `https://example.com/style.safetensors:0.8, owner/model`.

        Raises:
            ValueError: A scale is out of range; or see `load`.
        """
        fine_tunes = []
        for entry in filter(None, map(str.strip, _SEPARATOR.split(extra_lora))):
            address, scale = _with_scale(entry)
            weights = self.load(address, "extra_lora")
            fine_tunes.append(FineTune(name=source_name(address), weights=weights, scale=scale))
        return fine_tunes

    def _bytes(self) -> int:
        return sum(map(_tensor_bytes, self._kept.values()))


def source_name(address: str) -> str:
    """Return what messages and pictures call weights: an address without secrets, a file's name."""
    is_address = "://" in address or address.startswith("data:")
    path = Path(address).expanduser()
    return shown_source(address) if is_address or not path.exists() else path.name


def _with_scale(entry: str) -> tuple[str, float]:
    address, _, tail = entry.rpartition(":")
    try:
        scale = float(tail)
    except ValueError:
        return entry, 1.0
    if not address:
        return entry, 1.0
    if not MIN_LORA_SCALE <= scale <= MAX_LORA_SCALE:
        raise ValueError(
            f"extra_lora: the scale of {source_name(address)} must be from {MIN_LORA_SCALE:g} to "
            f"{MAX_LORA_SCALE:g}, got {tail}"
        )
    return address, scale


def _identity(path: Path) -> tuple[object, ...]:
    """Tell a file from a later one of the same name."""
    files = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return os.fspath(path), *((state.st_mtime_ns, state.st_size) for state in states)


def _tensor_bytes(weights: TrainedWeights) -> int:
    states = (
        weights.lora, weights.text_encoder_lora, weights.text_encoder_2_lora, weights.unet,
    )  # fmt: skip
    return sum(value.nbytes for state in states for value in state.values())
