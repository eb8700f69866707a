"""safetensors files that are the same, byte for byte, whenever their content is the same."""

import json
import struct

import safetensors.torch as safetensors
from torch import Tensor

_ALIGNMENT = 8  # of the tensor data, as safetensors itself pads
_LENGTH = struct.Struct("<Q")  # of the header, in front of it


def serialize(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return a safetensors file with its header sorted: safetensors shuffles the metadata."""
    data = safetensors.save({k: v.contiguous() for k, v in tensors.items()}, metadata)
    start = _data_start(data)
    header = json.loads(data[_LENGTH.size : start])
    stable = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    stable += b" " * (-len(stable) % _ALIGNMENT)
    return _LENGTH.pack(len(stable)) + stable + data[start:]


def tensor_data(file: bytes) -> memoryview:
    """Return what follows the header of a safetensors file."""
    return memoryview(file)[_data_start(file) :]


def _data_start(file: bytes) -> int:
    return _LENGTH.size + _LENGTH.unpack_from(file)[0]
