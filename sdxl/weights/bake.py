"""Trained weights added to those of a base model, which then needs no LoRA.

The base is copied, and the layers that were trained are written over in the copy's files: names,
shapes and dtypes stay as they were, and memory holds one layer at a time.
"""

import json
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sdxl.lora import TEXT_MODEL
from sdxl.models import PARTS
from sdxl.weights.lora_pairs import LoraPair, split_pairs
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.webui import embedding_files

EMBEDDINGS_FOLDER = "embeddings"
_TEXTS = (".json", ".md", ".txt")
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

Change = LoraPair | Tensor
"""What a weight of the base is changed by: an update, or another weight in its place."""


def bake(weights: TrainedWeights, base: Path, out: Path, scale: float = 1.0) -> None:
    """Write a diffusers directory of `base` with the trained networks in it.

    The new embeddings do not become a part of the text encoders, since no pipeline but ours would
    put their tokens in the trigger's place, and pool the prompt as in training. They are put
    beside, into the folder `embeddings`, as files for web UIs and diffusers.

    Args:
        weights: With LoRA or DoRA, or a U-Net.
        base: A diffusers directory; only its configs, tokenizers and safetensors are copied.
        out: A directory that does not exist yet. It appears when everything is in it.
        scale: At which the LoRA acts.

    Raises:
        ValueError: There is nothing to bake, `base` is no such directory or lacks a layer that was
            trained, or `out` exists.
    """
    lacking = [part for part in PARTS if not (base / part).is_dir()]
    if lacking:
        raise ValueError(
            f"{str(base)!r} is not a diffusers SDXL directory, the only kind of base that weights "
            f"can be baked into: it has no {', '.join(lacking)} folder"
        )
    if out.exists():
        raise ValueError(f"{str(out)!r} exists already: give the name of a new directory")
    changes = {
        "unet": weights.unet | _by_weight_name(weights.lora),
        "text_encoder": _by_weight_name(weights.text_encoder_lora),
        "text_encoder_2": _by_weight_name(weights.text_encoder_2_lora),
    }
    if not any(changes.values()):
        raise ValueError("the weights have no LoRA and no U-Net to bake: they are embeddings alone")
    places = {part: list(_find(base / part, wanted)) for part, wanted in changes.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        unfinished = Path(folder, "model")
        _copy_base(base, unfinished)
        for part, found in places.items():
            for name, place in found:
                place.change(unfinished / part, changes[part][name], scale)
        for name, content in embedding_files(weights).items():
            (unfinished / EMBEDDINGS_FOLDER).mkdir(exist_ok=True)
            (unfinished / EMBEDDINGS_FOLDER / name).write_bytes(content)
        unfinished.rename(out)


def apply_layer(base: Tensor, layer: LoraPair, scale: float = 1.0) -> Tensor:
    """Return W + scale B A; with DoRA (arXiv:2402.09353, equation 5) its rows at the lengths m.

    Args:
        base: W, (out, in) or (out, in, height, width), float32.
        layer: Of the same outputs and inputs.
        scale: 0 returns W, whatever the lengths are, as a LoRA at scale 0 does.
    """
    if scale == 0:
        return base
    up, down = layer.matrices()
    rows = base.flatten(1) + scale * (up @ down)
    if layer.magnitude is not None:
        rows *= layer.magnitude.float().reshape(-1, 1) / rows.norm(dim=1, keepdim=True)
    return rows.reshape(base.shape)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies: the bytes from `begin` to `end` of a file of that name."""

    file_name: str
    begin: int
    end: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def change(self, folder: Path, change: Change, scale: float) -> None:
        """Write the changed tensor over the one in `folder`."""
        with (folder / self.file_name).open("r+b") as file:
            file.seek(self.begin)
            data = bytearray(file.read(self.end - self.begin))
            base = torch.frombuffer(data, dtype=self.dtype).reshape(self.shape).float()
            weight = change if isinstance(change, Tensor) else apply_layer(base, change, scale)
            file.seek(self.begin)
            file.write(weight.to(self.dtype).contiguous().view(torch.uint8).numpy().tobytes())


def _by_weight_name(lora: dict[str, Tensor]) -> dict[str, Change]:
    return {f"{path}.weight": layer for path, layer in split_pairs(lora).items()}


def _find(folder: Path, wanted: Mapping[str, Change]) -> Iterator[tuple[str, _Place]]:
    """Yield the places of the wanted weights in a folder's files: two of each with two variants.

    Raises:
        ValueError: One is nowhere, or has another shape or an unknown dtype.
    """
    missing = set(wanted)
    for path in sorted(folder.glob("*.safetensors")) if wanted else ():
        entries, start = _read_header(path)
        for name, change in wanted.items():
            # transformers 5 writes the first text encoder without that prefix
            entry = entries.get(name) or entries.get(name.removeprefix(TEXT_MODEL))
            if entry is None:
                continue
            shape = change.shape if isinstance(change, Tensor) else change.weight_shape
            if tuple(entry["shape"]) != tuple(shape):
                raise ValueError(
                    f"the weight {name} has the shape {tuple(entry['shape'])} in the base's "
                    f"{folder.name} and {tuple(shape)} in the trained weights: they were trained "
                    "on another base model"
                )
            if entry["dtype"] not in _DTYPES:
                raise ValueError(
                    f"the base's {folder.name} is stored as {entry['dtype']}, which cannot be "
                    f"added to: give one that is stored as {', '.join(_DTYPES)}"
                )
            begin, end = (start + offset for offset in entry["data_offsets"])
            missing.discard(name)
            yield name, _Place(path.name, begin, end, _DTYPES[entry["dtype"]], tuple(shape))
    if missing:
        raise ValueError(
            f"the base's {folder.name} has no weight {min(missing)}, which was trained: they were "
            "trained on another base model"
        )


def _read_header(path: Path) -> tuple[dict[str, dict], int]:
    """Return the entries of a safetensors file by tensor name, and where its data begin."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is no whole .safetensors file ({error})") from error
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(size)), 8 + size


def _copy_base(base: Path, target: Path) -> None:
    target.mkdir()
    for folder in (base, *(base / part for part in PARTS)):
        for path in sorted(folder.iterdir()):
            # beside the folders a repository can have the whole model in one file once more
            is_network = path.suffix == ".safetensors" and folder != base
            if path.is_file() and (path.suffix in _TEXTS or is_network):
                copy = target / path.relative_to(base)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
