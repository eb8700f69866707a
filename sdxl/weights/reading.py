"""Trained weights from whatever holds them: any archive, folder or file for SDXL."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sdxl.weights.archive import ARCHIVE_MEMBERS, load_weights
from sdxl.weights.diffusers_keys import add_alphas, from_diffusers_key
from sdxl.weights.embeddings import join_embeddings, take_embeddings
from sdxl.weights.files import is_archive, read_safetensors
from sdxl.weights.kohya_keys import from_kohya_key
from sdxl.weights.layers import Layers, Network, lora_state
from sdxl.weights.metadata import RECORD_KEY
from sdxl.weights.other_models import refuse_by_keys, refuse_by_widths
from sdxl.weights.trained import TrainedWeights

DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"
_UNET_BLOCKS = ("down_blocks.", "mid_block.", "up_blocks.", "conv_", "add_embedding.", "time_emb")


def read_weights(source: Path) -> TrainedWeights:
    """Read trained weights, whoever trained them. No pickle is read and nothing is written.

    Args:
        source: An archive of ours or of cog-sdxl's, or the folder it unpacks to; a folder with
            `pytorch_lora_weights.safetensors`; a `.safetensors` file with a LoRA (by kohya's,
            LyCORIS', diffusers', peft's or cog-sdxl's keys), an embedding (`clip_l`, `clip_g`), or
            both.

    Raises:
        ValueError: It is none of these, broken, or for another model than SDXL; the text says what
            it is.
    """
    if source.is_dir():
        if any((source / name).is_file() for name in ARCHIVE_MEMBERS):
            return load_weights(source)
        if not (source / DIFFUSERS_NAME).is_file():
            raise ValueError(
                f"the folder {source.name} has neither the files of a weights archive "
                f"({', '.join(ARCHIVE_MEMBERS)}) nor {DIFFUSERS_NAME}: give a file in it"
            )
        return _read_file(source / DIFFUSERS_NAME)
    return load_weights(source) if is_archive(source) else _read_file(source)


def _read_file(path: Path) -> TrainedWeights:
    tensors, metadata = read_safetensors(path)
    refuse_by_keys(tensors, path.name)
    record = _record(path, metadata)
    concepts, embeddings = join_embeddings(take_embeddings(tensors, path.stem))
    if tensors and all(key.startswith(_UNET_BLOCKS) and "lora" not in key for key in tensors):
        return TrainedWeights(concepts=(), embeddings=None, unet=tensors, record=record)
    layers = _layers(tensors, path)
    add_alphas(layers, metadata)
    states = {network: lora_state(of_network) for network, of_network in layers.items()}
    unet_lora = states.get("unet", {})
    refuse_by_widths(unet_lora, path.name)
    if not states and not concepts:
        raise ValueError(f"the weights {path.name} are empty: the file has no tensor")
    return TrainedWeights(
        concepts=concepts,
        embeddings=embeddings,
        lora=unet_lora,
        text_encoder_lora=states.get("text_encoder", {}),
        text_encoder_2_lora=states.get("text_encoder_2", {}),
        record=record,
    )


def _layers(tensors: Mapping[str, Tensor], path: Path) -> dict[Network, Layers]:
    """Sort tensors by network, layer and part."""
    layers: dict[Network, Layers] = {}
    for key, value in tensors.items():
        place = from_kohya_key(key) or from_diffusers_key(key)
        if place is None:
            raise ValueError(
                f"{path.name} has the key {key!r}, which is of no format for LoRA that is read "
                "here: kohya's (lora_unet_..), LyCORIS', diffusers' (unet...), cog-sdxl's"
            )
        parts = layers.setdefault(place.network, {}).setdefault(place.path, {})
        if place.part in parts:
            raise ValueError(
                f"{path.name} has two tensors for {place.part} of the layer {place.path}, one of "
                f"them {key!r}: the file is broken"
            )
        parts[place.part] = value
    return layers


def _record(path: Path, metadata: Mapping[str, str]) -> dict[str, object]:
    """Return our record if the file has one, else the metadata that its own trainer wrote."""
    if RECORD_KEY not in metadata:
        return {"source": path.name, "metadata": dict(metadata)}
    try:
        return json.loads(metadata[RECORD_KEY])
    except json.JSONDecodeError as error:
        raise ValueError(
            f"the metadata {RECORD_KEY} of {path.name} is not JSON: {error}"
        ) from error
