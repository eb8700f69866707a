"""A tiny SDXL of the real classes with random weights, written as a diffusers directory.

Half a million parameters, built in well under a second, without a hub. The tokenizers are the
pocket base's. Like SDXL's published config, the second text encoder says `eos_token_id: 2`.
"""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdxl.models import SDXLModels, load_models

POCKET = Path(__file__).parent.parent / "samples" / "pocket-sdxl"
NATIVE_PX = 32
VOCABULARY = 711  # the pocket tokenizers'
END_OF_TEXT = 710
CPU = torch.device("cpu")

Variant = Literal["sdxl", "distilled", "no_mid_block", "v_prediction", "inpainting"]
"""What else an SDXL can be: `distilled` has layers of its own in every block and one resnet in the
middle, as SSD-1B; `no_mid_block` has nothing there, as KOALA-700M; `v_prediction` goes to zero
signal, as NoobAI-XL's; `inpainting` takes five more channels."""

_UNET: dict[str, Any] = {
    "sample_size": NATIVE_PX // 8,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (1, 2, 2),
    "cross_attention_dim": 48,
    "norm_num_groups": 4,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 32 + 6 * 8,
}
_UNET_CHANGES: dict[str, dict[str, Any]] = {
    "distilled": {
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, [2, 1], [1, 2]],
        "reverse_transformer_layers_per_block": [[1, 1, 3], [2, 1, 1], 1],
        "mid_block_type": "UNetMidBlock2D",
    },
    "no_mid_block": {"mid_block_type": None},
    "inpainting": {"in_channels": 9},
}
_QKV = ("q_proj", "k_proj", "v_proj")
_SCHEDULER_CHANGES: dict[str, dict[str, Any]] = {
    "v_prediction": {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    }
}


def write_tiny_sdxl(directory: Path, variant: Variant = "sdxl", seed: int = 0) -> Path:
    """Write the model and return its directory."""
    torch.manual_seed(seed)
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(POCKET / part, directory / part)
    for part, network in _networks(_UNET_CHANGES.get(variant, {})).items():
        network.save_pretrained(directory / part)
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        **_SCHEDULER_CHANGES.get(variant, {}),
    }
    EulerDiscreteScheduler(**settings).save_pretrained(directory / "scheduler")
    _write_index(directory, _class_name="StableDiffusionXLPipeline")
    return directory


def write_tiny_refiner(directory: Path, states: int = 32) -> Path:
    """Write a refiner for it: the second text encoder's states alone, and an aesthetic score."""
    torch.manual_seed(0)
    changes = {"cross_attention_dim": states, "projection_class_embeddings_input_dim": 32 + 5 * 8}
    UNet2DConditionModel(**(_UNET | changes)).save_pretrained(directory / "unet")
    kind = "StableDiffusionXLImg2ImgPipeline"
    _write_index(directory, _class_name=kind, requires_aesthetics_score=True)
    return directory


def _write_index(directory: Path, **content: object) -> None:
    (directory / "model_index.json").write_text(json.dumps(content))


def write_single_file(base_dir: Path, path: Path, markers: Sequence[str] = ()) -> Path:
    """Write a model of one layer a block as one file under Stability's names (generative-models).

    Args:
        base_dir: The diffusers directory.
        path: Of the file.
        markers: Names of empty tensors beside the weights, as `v_pred`.
    """
    layers = UNet2DConditionModel.load_config(base_dir / "unet")["layers_per_block"] + 1
    unet = load_file(base_dir / "unet" / "diffusion_pytorch_model.safetensors")
    tensors = {f"model.diffusion_model.{_ldm_unet_name(k, layers)}": v for k, v in unet.items()}
    vae = load_file(base_dir / "vae" / "diffusion_pytorch_model.safetensors")
    for key, value in vae.items():
        name = _ldm_vae_name(key)
        # its attention is written with 1x1 convolutions
        is_projection = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        tensors[f"first_stage_model.{name}"] = value[..., None, None] if is_projection else value
    for key, value in load_file(base_dir / "text_encoder" / "model.safetensors").items():
        tensors[f"conditioner.embedders.0.transformer.text_model.{key}"] = value
    text_encoder_2 = load_file(base_dir / "text_encoder_2" / "model.safetensors")
    for name, value in _open_clip(text_encoder_2).items():
        tensors[f"conditioner.embedders.1.model.{name}"] = value
    tensors |= {name: torch.zeros(0) for name in markers}
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def load_tiny_sdxl(directory: Path, dtype: torch.dtype = torch.float32) -> SDXLModels:
    """Load it on the CPU; with bfloat16 it is handled as it would be on a GPU."""
    return load_models(directory, CPU, dtype)


def predict_noise(models: SDXLModels) -> torch.Tensor:
    """What the U-Net makes of fixed inputs, (1, 4, 4, 4)."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        return models.unet(
            torch.randn(1, 4, 4, 4, generator=generator),
            torch.tensor([500]),
            torch.randn(1, 77, 48, generator=generator),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, 32, generator=generator),
                "time_ids": torch.full((1, 6), 32.0),
            },
        ).sample


def plain_pipeline(models: SDXLModels) -> StableDiffusionXLPipeline:
    """diffusers' own pipeline around the models, without a line of ours."""
    return StableDiffusionXLPipeline(
        vae=models.vae,
        text_encoder=models.text_encoder,
        text_encoder_2=models.text_encoder_2,
        tokenizer=models.tokenizer,
        tokenizer_2=models.tokenizer_2,
        unet=models.unet,
        scheduler=EulerDiscreteScheduler.from_config(models.scheduler_config),
        add_watermarker=False,
    )


def _renamed(name: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        name = name.replace(ours, theirs)
    return name


def _ldm_unet_name(name: str, layers: int) -> str:
    """Return the name of a U-Net's weight; `layers` is how many an up block has."""
    head, *rest = name.split(".")
    if head not in ("down_blocks", "mid_block", "up_blocks"):
        return _renamed(
            name,
            {
                "conv_in": "input_blocks.0.0",
                "time_embedding.linear_1": "time_embed.0",
                "time_embedding.linear_2": "time_embed.2",
                "add_embedding.linear_1": "label_emb.0.0",
                "add_embedding.linear_2": "label_emb.0.2",
                "conv_norm_out": "out.0",
                "conv_out": "out.2",
            },
        )
    block = int(rest.pop(0)) if head != "mid_block" else 0
    kind, layer, *tail = rest
    if kind == "resnets":
        tail = [
            _renamed(
                ".".join(tail),
                {
                    "norm1": "in_layers.0",
                    "conv1": "in_layers.2",
                    "norm2": "out_layers.0",
                    "conv2": "out_layers.3",
                    "time_emb_proj": "emb_layers.1",
                    "conv_shortcut": "skip_connection",
                },
            )
        ]
    place = 1 if kind == "attentions" else 0
    if head == "mid_block":
        return f"middle_block.{2 * int(layer) + place}.{'.'.join(tail)}"
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * layers}.0.op.{tail[-1]}"
    if kind == "upsamplers":  # after the attention, which every tiny block with one has
        return f"output_blocks.{(block + 1) * layers - 1}.2.conv.{tail[-1]}"
    if head == "down_blocks":
        return f"input_blocks.{1 + block * layers + int(layer)}.{place}.{'.'.join(tail)}"
    return f"output_blocks.{block * layers + int(layer)}.{place}.{'.'.join(tail)}"


def _ldm_vae_name(name: str) -> str:
    name = re.sub(r"up_blocks\.(\d)", lambda match: f"up.{3 - int(match[1])}", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    return _renamed(
        name,
        {
            "down_blocks": "down",
            "resnets": "block",
            "downsamplers.0": "downsample",
            "upsamplers.0": "upsample",
            "mid_block.attentions.0": "mid.attn_1",
            "group_norm": "norm",
            "to_out.0": "proj_out",
            "to_q": "q",
            "to_k": "k",
            "to_v": "v",
            "conv_norm_out": "norm_out",
            "conv_shortcut": "nin_shortcut",
        },
    )


def _open_clip(text_encoder_2: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the second text encoder's weights as OpenCLIP has them: q, k, v in one matrix."""
    names = {
        "text_model.encoder.layers": "transformer.resblocks",
        "text_model.embeddings.token_embedding": "token_embedding",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm": "ln_final",
        "layer_norm": "ln_",
        "fc1": "c_fc",
        "fc2": "c_proj",
        "self_attn": "attn",
    }
    tensors = {"logit_scale": torch.ones(())}
    for key, value in text_encoder_2.items():
        name = _renamed(key, names)
        if name == "text_projection.weight":
            tensors["text_projection"] = value.T
        elif ".q_proj." in name:
            parts = [text_encoder_2[key.replace("q_proj", part)] for part in _QKV]
            tensors[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
        elif not any(part in name for part in _QKV):
            tensors[name] = value
    return tensors


def _networks(unet_changes: dict[str, Any]) -> dict[str, torch.nn.Module]:
    def text_config(width: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=width,
            max_position_embeddings=77,
            bos_token_id=709,
            eos_token_id=2,
        )

    return {
        "text_encoder": CLIPTextModel(text_config(16)),
        "text_encoder_2": CLIPTextModelWithProjection(text_config(32)),
        "vae": AutoencoderKL(
            block_out_channels=(4, 4, 4, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=2,
            sample_size=NATIVE_PX,
            scaling_factor=0.5,
        ),
        "unet": UNet2DConditionModel(**_UNET | unet_changes),
    }
