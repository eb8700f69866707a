"""The pocket SDXL's networks: SDXL's own classes and block layout, a thousand times smaller."""

import torch
from diffusers import AutoencoderKL, DDPMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from samples.pocket.frame import REFERENCE

LATENT_CHANNELS = 4
LATENT_SIZE = REFERENCE // 8
POSITIONS = 77
TEXT_WIDTHS = (64, 128)
_TIME_WIDTH = 32
_TIME_IDS = 6

# SDXL's own noise schedule.
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}


def make_vae() -> AutoencoderKL:
    """The autoencoder: 1 M parameters, one eighth of the picture's side, four channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=REFERENCE,
    )


def make_text_encoders(
    tokenizer: CLIPTokenizer,
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Both text encoders, for a vocabulary of the given tokenizer's size."""
    # With any other end id than the tokenizer's own, the pooled output would be taken at the
    # highest id of the prompt: at a new token, once there is one.
    shared = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        # Several times faster than the fused kernel at this size on a CPU.
        "attn_implementation": "eager",
    }
    first, second = TEXT_WIDTHS
    one = CLIPTextConfig(
        hidden_size=first,
        intermediate_size=4 * first,
        projection_dim=first,
        hidden_act="quick_gelu",
        pad_token_id=tokenizer.eos_token_id,
        **shared,
    )
    two = CLIPTextConfig(
        hidden_size=second,
        intermediate_size=4 * second,
        projection_dim=second,
        hidden_act="gelu",
        pad_token_id=0,
        **shared,
    )
    return CLIPTextModel(one), CLIPTextModelWithProjection(two)


def make_unet() -> UNet2DConditionModel:
    """The denoiser: SDXL's three levels, the lower two with cross-attention; 6 M parameters."""
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        transformer_layers_per_block=(1, 1, 1),
        attention_head_dim=(2, 3, 4),
        cross_attention_dim=sum(TEXT_WIDTHS),
        use_linear_projection=True,
        norm_num_groups=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=TEXT_WIDTHS[1] + _TIME_IDS * _TIME_WIDTH,
    )
    # At 256 positions and heads of 32 the plain processor beats the fused one on a CPU.
    unet.set_attn_processor(AttnProcessor())
    return unet


def make_scheduler() -> EulerDiscreteScheduler:
    """The sampler of the exported base, set as SDXL's."""
    return EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading", steps_offset=1)


def make_noise_schedule() -> DDPMScheduler:
    """The noise that training adds."""
    return DDPMScheduler(**SCHEDULE)


def encode_text(
    first: CLIPTextModel,
    second: CLIPTextModelWithProjection,
    ids: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token states of both encoders side by side, and the second one's pooled output."""
    states = first(ids[0], output_hidden_states=True).hidden_states[-2]
    output = second(ids[1], output_hidden_states=True)
    return torch.cat([states, output.hidden_states[-2]], -1), output.text_embeds


def to_tensor(pictures: torch.Tensor) -> torch.Tensor:
    """Bytes (n, height, width, 3) to the networks' range and layout."""
    # The copy matters: a permuted view would make every convolution run in channels-last
    # layout, which is the slower one here.
    return (pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()


def to_pictures(tensors: torch.Tensor) -> torch.Tensor:
    """The networks' range and layout to bytes (n, height, width, 3)."""
    bounded = (tensors.float().clamp(-1, 1) + 1) * 127.5
    return bounded.round().to(torch.uint8).permute(0, 2, 3, 1)
