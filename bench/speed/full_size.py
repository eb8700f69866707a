"""SDXL at its full size with random weights: the speed of training without a download."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdxl.downloads import POCKET
from sdxl.models import SDXLModels, load_models

# the configs of stabilityai/stable-diffusion-xl-base-1.0, where they differ from the classes'
_UNET: dict[str, Any] = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}


def full_size_models(device: torch.device, dtype: torch.dtype) -> SDXLModels:
    """Return SDXL, frozen, its weights drawn straight on `device`: nothing passes the host.

    Tokenizers and noise schedule are the pocket base's. New tokens have to come right behind an
    embedding table, so the tables have the 711 rows of those tokenizers instead of 49408: 0.2 GB
    less in bfloat16, and the same speed, since a table is only looked up.

    Args:
        device: Of all networks.
        dtype: Of the text encoders and the U-Net; the VAE's is float32, as in `load_models`.
    """
    pocket = load_models(POCKET, torch.device("cpu"), torch.float32)
    rows = len(pocket.tokenizer)
    assert rows == len(pocket.tokenizer_2)
    with _built_on(device, dtype):
        text_encoder = CLIPTextModel(_text_config(rows, 768, 12, 12, "quick_gelu"))
        text_encoder_2 = CLIPTextModelWithProjection(_text_config(rows, 1280, 32, 20, "gelu"))
        unet = UNet2DConditionModel(**_UNET)
    with _built_on(device, torch.float32):
        vae = AutoencoderKL(**_VAE)
    networks: dict[str, nn.Module] = {
        "text_encoder": text_encoder,
        "text_encoder_2": text_encoder_2,
        "unet": unet,
        "vae": vae,
    }
    for network in networks.values():
        network.requires_grad_(False).eval()
    return replace(pocket, **networks)


def _text_config(rows: int, width: int, layers: int, heads: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=2,
    )


@contextmanager
def _built_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Let new networks have their weights on `device` and in `dtype` from the start."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)
