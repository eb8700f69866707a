"""The files for ComfyUI, AUTOMATIC1111, Invoke and diffusers: kohya keys, `clip_l`/`clip_g`."""

import torch
from torch import Tensor

from sdxl.placeholder_embeddings import PlaceholderEmbeddings

_KOHYA = {"lora_A": "lora_down", "lora_B": "lora_up"}


def to_kohya_keys(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename peft's keys to kohya's (diffusers' layer names), as float16 and with alpha = rank."""
    renamed: dict[str, Tensor] = {}
    for key, value in lora.items():
        path, matrix = key.removesuffix(".weight").rsplit(".", 1)
        name = f"lora_unet_{path.replace('.', '_')}"
        renamed[f"{name}.{_KOHYA[matrix]}.weight"] = value.half()
        if matrix == "lora_A":
            renamed[f"{name}.alpha"] = torch.tensor(float(value.shape[0]))
    return renamed


def embedding_tensors(embeddings: PlaceholderEmbeddings) -> dict[str, Tensor]:
    """Return the rows under the names that every web UI reads, as float16."""
    return {"clip_l": embeddings.clip_l.half(), "clip_g": embeddings.clip_g.half()}


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
