"""Opening weights files: what they are is read off their content, and no pickle ever is."""

import tarfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02")  # torch.save's zip, and before it
_JSON_AT = 8  # after the length of the header


def is_archive(path: Path) -> bool:
    """Tell a tar archive from a safetensors file.

    Raises:
        ValueError: The path is a pickle, or of neither kind, or does not exist.
    """
    if not path.is_file():
        raise ValueError(f"there is no weights file {str(path)!r}")
    with path.open("rb") as file:
        start = file.read(_JSON_AT + 1)
    if path.suffix in _PICKLES or start.startswith(_PICKLE_STARTS):
        raise ValueError(
            f"the weights {path.name} are a pickle or zip, which can run any code when it is "
            "opened, and are never read: give the .safetensors file of the same weights"
        )
    if start[_JSON_AT:] == b"{":
        return False
    if not tarfile.is_tarfile(path):
        raise ValueError(
            f"the weights {path.name} are not a tar archive and no .safetensors file: give the "
            "trained_model.tar that training returned, or a LoRA's .safetensors"
        )
    return True


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors and the metadata of a file.

    Raises:
        ValueError: The file is broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"the weights {path.name} are broken: {error}") from error
