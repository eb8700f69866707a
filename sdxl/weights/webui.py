"""Single files for other programs: LoRA in kohya's or diffusers' names, embeddings, both in one."""

import re

from sdxl.weights.diffusers_keys import adapter_metadata, to_diffusers_keys
from sdxl.weights.embeddings import EMBEDDING_SUFFIX, bundled, embedding_tensors
from sdxl.weights.kohya_keys import to_kohya_keys
from sdxl.weights.metadata import embedding_metadata, lora_metadata
from sdxl.weights.stable_bytes import serialize
from sdxl.weights.trained import TrainedWeights


def webui_file(weights: TrainedWeights) -> bytes:
    """Return the LoRA with kohya's keys, for ComfyUI, AUTOMATIC1111, Forge and Invoke."""
    tensors = to_kohya_keys(weights)
    return serialize(tensors, lora_metadata(weights, tensors))


def bundle_file(weights: TrainedWeights) -> bytes:
    """Return the same with the embeddings in it."""
    tensors = {**to_kohya_keys(weights), **bundled(embedding_tensors(weights))}
    return serialize(tensors, lora_metadata(weights, tensors))


def diffusers_file(weights: TrainedWeights) -> bytes:
    """Return the LoRA with peft's keys, for diffusers' `load_lora_weights`."""
    tensors = to_diffusers_keys(weights)
    metadata = {**lora_metadata(weights, tensors), **adapter_metadata(weights)}
    return serialize(tensors, {**metadata, "modelspec.implementation": "diffusers"})


def embedding_files(weights: TrainedWeights) -> dict[str, bytes]:
    """Return a file with `clip_l` and `clip_g` for each concept, by its name."""
    return {
        f"{file_name(trigger)}{EMBEDDING_SUFFIX}.safetensors": serialize(
            rows, embedding_metadata(weights, trigger, rows)
        )
        for trigger, rows in embedding_tensors(weights).items()
    }


def file_name(trigger: str) -> str:
    """Return the trigger as a file's name, without ending."""
    return re.sub(r"[^\w.-]+", "_", trigger)
