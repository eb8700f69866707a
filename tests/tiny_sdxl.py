"""A tiny SDXL of the real classes with random weights, written as a diffusers directory.

Half a million parameters, built in well under a second, without a hub. The tokenizers are the
pocket base's. Like SDXL's published config, the second text encoder says `eos_token_id: 2`.
"""

import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdxl.models import SDXLModels, load_models

POCKET = Path(__file__).parent.parent / "samples" / "pocket-sdxl"
NATIVE_PX = 32
VOCABULARY = 711  # the pocket tokenizers'
END_OF_TEXT = 710
CPU = torch.device("cpu")


def write_tiny_sdxl(directory: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Write the model and return its directory."""
    torch.manual_seed(seed)
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(POCKET / part, directory / part)
    for part, network in _networks().items():
        network.save_pretrained(directory / part)
    EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
        prediction_type=prediction_type,
    ).save_pretrained(directory / "scheduler")
    return directory


def load_tiny_sdxl(directory: Path, dtype: torch.dtype = torch.float32) -> SDXLModels:
    """Load it on the CPU; with bfloat16 it is handled as it would be on a GPU."""
    return load_models(directory, CPU, dtype)


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


def _networks() -> dict[str, torch.nn.Module]:
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
        "unet": UNet2DConditionModel(
            sample_size=NATIVE_PX // 8,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16, 16),
            layers_per_block=1,
            transformer_layers_per_block=(1, 1, 1),
            attention_head_dim=(1, 2, 2),
            cross_attention_dim=48,
            norm_num_groups=4,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=32 + 6 * 8,
        ),
    }
