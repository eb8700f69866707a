"""Pictures from a model that is in memory: diffusers' pipeline fed with our prompt encoding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    SchedulerMixin,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from torch.nn import functional

from sdxl.models import SDXLModels
from sdxl.prompt import Pooling, encode_prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerSettings:
    """How pictures are made, the same for all pictures of a call.

    Attributes:
        height_px: A multiple of 8.
        width_px: A multiple of 8.
        num_inference_steps: Denoising steps.
        guidance_scale: Of classifier-free guidance (arXiv:2207.12598); 1 is without.
        negative_prompt: What to stay away from; the empty text is a text too, as in cog-sdxl.
    """

    height_px: int
    width_px: int
    num_inference_steps: int
    guidance_scale: float
    negative_prompt: str = ""


def sample(
    models: SDXLModels,
    scheduler: SchedulerMixin,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplerSettings,
    pooling: Pooling = "end_of_text",
) -> list[Image.Image]:
    """Make one picture for each prompt, each from its own seed: it can be made again alone.

    An inpainting base repaints all of an empty picture.

    Args:
        models: On one device.
        scheduler: The sampler.
        prompts: With the placeholders already expanded.
        seeds: One for each prompt; the noise comes from CPU generators, so that a seed means the
            same on every device.
        settings: Of all of them.
        pooling: Where the pooled embedding is read.
    """
    positive = encode_prompts(prompts, models, pooling)
    negative = encode_prompts([settings.negative_prompt] * len(prompts), models, pooling)
    pipeline = _build_pipeline(models, scheduler)
    latents = pipeline(
        prompt_embeds=positive.prompt_embeds,
        pooled_prompt_embeds=positive.pooled_prompt_embeds,
        negative_prompt_embeds=negative.prompt_embeds,
        negative_pooled_prompt_embeds=negative.pooled_prompt_embeds,
        height=settings.height_px,
        width=settings.width_px,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="latent",
        **(_whole_picture(models.vae, settings) if models.is_inpainting else {}),
    ).images
    return [_decode(models.vae, latent, pipeline.image_processor) for latent in latents]


def inpainting_channels(vae: AutoencoderKL, pictures: Tensor, masks: Tensor) -> Tensor:
    """Return what an inpainting U-Net sees beside the latents, as diffusers' pipeline has it.

    Args:
        vae: On the pictures' device.
        pictures: (B, 3, H, W) in [-1, 1].
        masks: (B, 1, H, W) in {0, 1}; 1 is to be repainted, there the picture is hidden (zero).

    Returns:
        (B, 1 + 4, h, w) float32: the mask at the latent cells (nearest pixel), and the latents of
        the masked pictures (their mode, scaled by the VAE's scaling_factor).
    """
    masked = (pictures * (masks < 0.5)).to(vae.dtype)
    with torch.no_grad():
        latents = vae.encode(masked).latent_dist.mode().float() * vae.config["scaling_factor"]
    cells = functional.interpolate(masks, size=latents.shape[-2:], mode="nearest")
    return torch.cat([cells, latents], dim=1)


def _whole_picture(vae: AutoencoderKL, settings: SamplerSettings) -> dict[str, object]:
    """Return the pipeline's arguments for repainting everything.

    The latents are given: the pipeline would encode the picture itself, and leave the VAE in half
    precision.
    """
    size = (settings.height_px, settings.width_px)
    picture = torch.zeros(1, 3, *size, device=vae.device)
    mask = torch.ones(1, 1, *size, device=vae.device)
    return {
        "image": picture,
        "mask_image": mask,
        "masked_image_latents": inpainting_channels(vae, picture, mask)[:, 1:],
        "strength": 1.0,
    }


def _decode(vae: AutoencoderKL, latent: Tensor, image_processor: VaeImageProcessor) -> Image.Image:
    """Decode one picture's latent, (4, h, w), in the VAE's own dtype.

    The pipeline would feed half-precision latents to a float32 VAE; one at a time bounds memory.
    """
    scaled = latent[None].to(vae.dtype) / vae.config["scaling_factor"]
    with torch.no_grad():
        pixels = vae.decode(scaled).sample
    return image_processor.numpy_to_pil(image_processor.postprocess(pixels, output_type="np"))[0]


def _build_pipeline(
    models: SDXLModels, scheduler: SchedulerMixin
) -> StableDiffusionXLPipeline | StableDiffusionXLInpaintPipeline:
    kind = StableDiffusionXLInpaintPipeline if models.is_inpainting else StableDiffusionXLPipeline
    pipeline = kind(
        vae=models.vae,
        text_encoder=models.text_encoder,
        text_encoder_2=models.text_encoder_2,
        tokenizer=models.tokenizer,
        tokenizer_2=models.tokenizer_2,
        unet=models.unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
