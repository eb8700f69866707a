"""The files for ComfyUI, AUTOMATIC1111, Invoke and diffusers: kohya keys, `clip_l`/`clip_g`."""

import torch
from torch import Tensor

from sdxl.concept import Concept
from sdxl.lora import MAGNITUDE
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.trained import TrainedWeights

_PARTS = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}


def to_kohya_keys(weights: TrainedWeights) -> dict[str, Tensor]:
    """Rename peft's keys to kohya's (diffusers' layer names), as float16 and with alpha = rank."""
    return {
        **_renamed("lora_unet", weights.lora),
        **_renamed("lora_te1", weights.text_encoder_lora),
        **_renamed("lora_te2", weights.text_encoder_2_lora),
    }


def _renamed(prefix: str, lora: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in lora.items():
        path, part = key.split(".lora_")
        name = f"{prefix}_{path.replace('.', '_')}"
        if f"lora_{part}" == MAGNITUDE:
            renamed[f"{name}.dora_scale"] = value.half()
            continue
        renamed[f"{name}.{_PARTS[f'lora_{part}']}"] = value.half()
        if part == "A.weight":
            renamed[f"{name}.alpha"] = torch.tensor(float(value.shape[0]))
    return renamed


def embedding_tensors(concept: Concept, embeddings: PlaceholderEmbeddings) -> dict[str, Tensor]:
    """Return a concept's rows under the names that every web UI reads, as float16."""
    rows = [embeddings.tokens.index(token) for token in concept.placeholder_tokens]
    return {"clip_l": embeddings.clip_l[rows].half(), "clip_g": embeddings.clip_g[rows].half()}


def kohya_metadata(trigger: str) -> dict[str, str]:
    """Return the metadata by which web UIs recognize an SDXL LoRA and show its trigger."""
    return {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_output_name": trigger,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": trigger,
        "modelspec.trigger_phrase": trigger,
    }
