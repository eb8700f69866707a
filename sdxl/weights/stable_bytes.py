"""safetensors files that are the same, byte for byte, whenever their content is the same."""

import json
import struct

import safetensors.torch as safetensors
from torch import Tensor

_ALIGNMENT = 8  # of the tensor data, as safetensors itself pads


def serialize(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return a safetensors file with its header sorted: safetensors shuffles the metadata."""
    data = safetensors.save(tensors, metadata)
    (header_size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_size])
    stable = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    stable += b" " * (-len(stable) % _ALIGNMENT)
    return struct.pack("<Q", len(stable)) + stable + data[8 + header_size :]
