"""Pictures from a model that is in memory: diffusers' pipelines fed with our prompt encoding."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    SchedulerMixin,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from torch.nn import functional

from sdxl.logs import Lines
from sdxl.models import SDXLModels
from sdxl.prompt import Pooling, PromptEmbeds, encode_prompts


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerSettings:
    """How pictures are made, the same for all pictures of a call.

    Attributes:
        height_px: A multiple of 8.
        width_px: A multiple of 8.
        num_inference_steps: Denoising steps.
        guidance_scale: Of classifier-free guidance (arXiv:2207.12598); 1 is without.
        guidance_rescale: How far guided predictions get the spread of the prompt's own back, 0 to 1
            (arXiv:2305.08891, section 3.4).
        negative_prompt: What to stay away from; the empty text is a text too, as in cog-sdxl.
    """

    height_px: int
    width_px: int
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float = 0.0
    negative_prompt: str = ""


@dataclass(frozen=True, slots=True)
class GuidancePair:
    """What the U-Net is told of the prompts, and of what to stay away from; B rows each."""

    positive: PromptEmbeds
    negative: PromptEmbeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Canvas:
    """What pictures start from, instead of noise alone. See `inference.canvas`.

    Attributes:
        latents: (1, 4, h, w) float32, of the whole picture, scaled.
        strength: Part of the denoising steps that is done, 0 to 1: 1 leaves nothing of `latents`.
        mask: (1, 1, H, W) float32 in {0, 1}, the same within a latent cell; 1 is repainted. None
            repaints everything.
        masked_latents: (1, 4, h, w) float32, of the picture without what is repainted; for an
            inpainting base.
    """

    latents: Tensor
    strength: float
    mask: Tensor | None = None
    masked_latents: Tensor | None = None


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
        seeds: One for each prompt; see `seeded`.
        settings: Of all of them.
        pooling: Where the pooled embedding is read.
    """
    guidance = encode_guidance(models, prompts, settings.negative_prompt, pooling)
    return decode(models.vae, denoise(models, scheduler, guidance, seeded(seeds), settings))


def seeded(seeds: Sequence[int]) -> list[torch.Generator]:
    """Return one source of noise for each seed, on the CPU: a seed means the same everywhere."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def encode_guidance(
    models: SDXLModels, prompts: Sequence[str], negative_prompt: str, pooling: Pooling
) -> GuidancePair:
    """Encode the prompts and the negative one together: each text once, and all equally long."""
    embeds = encode_prompts([*prompts, negative_prompt], models, pooling)
    last = len(prompts)
    return GuidancePair(embeds.select(torch.arange(last)), embeds.select(torch.full((last,), last)))


def denoise(
    models: SDXLModels,
    scheduler: SchedulerMixin,
    guidance: GuidancePair,
    generators: Sequence[torch.Generator],
    settings: SamplerSettings,
    canvas: Canvas | None = None,
    denoising_end: float | None = None,
    show_progress: bool = False,
) -> Tensor:
    """Return the latents of a picture for each generator, (B, 4, h, w), scaled.

    Args:
        models: On one device.
        scheduler: The sampler.
        guidance: B rows.
        generators: B sources of noise.
        settings: Of all of them.
        canvas: What they start from; None is noise.
        denoising_end: Part of the noise levels, in (0, 1), after which the rest of the noise is
            left to a refiner; None leaves nothing.
        show_progress: Log a bar.
    """
    if canvas is None and models.is_inpainting:
        canvas = _blank_canvas(models, settings)
    if canvas and int(settings.num_inference_steps * canvas.strength) == 0:
        return canvas.latents.repeat(len(generators), 1, 1, 1)
    kind, start = _kind(models, settings, canvas)
    pipeline = build_pipeline(kind, models, scheduler, show_progress)
    latents = pipeline(
        **guidance_arguments(guidance, settings),
        **start,
        num_inference_steps=settings.num_inference_steps,
        generator=list(generators),
        denoising_end=denoising_end,
        output_type="latent",
    ).images
    if denoising_end and canvas and canvas.mask is not None and not models.is_inpainting:
        return _noisy_outside(canvas, latents, scheduler, generators, denoising_end)
    return latents


def guidance_arguments(guidance: GuidancePair, settings: SamplerSettings) -> dict[str, object]:
    """Return the arguments by which every pipeline of SDXL is told what to show."""
    return {
        "prompt_embeds": guidance.positive.prompt_embeds,
        "pooled_prompt_embeds": guidance.positive.pooled_prompt_embeds,
        "negative_prompt_embeds": guidance.negative.prompt_embeds,
        "negative_pooled_prompt_embeds": guidance.negative.pooled_prompt_embeds,
        "guidance_scale": settings.guidance_scale,
        "guidance_rescale": settings.guidance_rescale,
    }


def encode_pictures(vae: AutoencoderKL, pictures: Tensor, tiled: bool = False) -> Tensor:
    """Return the latents of pictures, (B, 3, H, W) in [-1, 1], as (B, 4, h, w) float32, scaled.

    `tiled` encodes overlapping tiles one after the other, for large pictures.
    """
    vae.use_tiling = tiled
    with torch.no_grad():
        latents = vae.encode(pictures.to(vae.dtype)).latent_dist.mode()
    return latents.float() * vae.config["scaling_factor"]


def inpainting_channels(
    vae: AutoencoderKL, pictures: Tensor, masks: Tensor, tiled: bool = False
) -> Tensor:
    """Return what an inpainting U-Net sees beside the latents, as diffusers' pipeline has it.

    Args:
        vae: On the pictures' device.
        pictures: (B, 3, H, W) in [-1, 1].
        masks: (B, 1, H, W) in {0, 1}; 1 is to be repainted, there the picture is hidden (zero).
        tiled: See `encode_pictures`.

    Returns:
        (B, 1 + 4, h, w) float32: the mask at the latent cells (nearest pixel), and the latents of
        the masked pictures (their mode, scaled by the VAE's scaling_factor).
    """
    latents = encode_pictures(vae, pictures * (masks < 0.5), tiled)
    cells = functional.interpolate(masks, size=latents.shape[-2:], mode="nearest")
    return torch.cat([cells, latents], dim=1)


def decode(vae: AutoencoderKL, latents: Tensor, tiled: bool = False) -> list[Image.Image]:
    """Decode latents, (B, 4, h, w), one at a time to bound memory, in the VAE's own dtype.

    The pipeline would feed half-precision latents to a float32 VAE.

    Args:
        vae: The VAE.
        latents: Scaled.
        tiled: Decode overlapping tiles one after the other, for large pictures.
    """
    processor = VaeImageProcessor()
    pictures = []
    vae.use_tiling = tiled
    for latent in latents.split(1):
        with torch.no_grad():
            pixels = vae.decode(latent.to(vae.dtype) / vae.config["scaling_factor"]).sample
        pixels = processor.postprocess(pixels, output_type="np")
        pictures += processor.numpy_to_pil(pixels)
    return pictures


def build_pipeline(
    kind: type[DiffusionPipeline],
    models: SDXLModels,
    scheduler: SchedulerMixin,
    show_progress: bool = False,
    **changes: object,
) -> DiffusionPipeline:
    """Put a pipeline of diffusers around the models, which are shared; `changes` replace parts."""
    parts = {
        "vae": models.vae,
        "text_encoder": models.text_encoder,
        "text_encoder_2": models.text_encoder_2,
        "tokenizer": models.tokenizer,
        "tokenizer_2": models.tokenizer_2,
        "unet": models.unet,
        "scheduler": scheduler,
        "add_watermarker": False,
    }
    pipeline = kind(**(parts | changes))
    pipeline.set_progress_bar_config(
        disable=not show_progress, file=Lines(sys.stderr), ascii=True, ncols=80, mininterval=1
    )
    return pipeline


def _kind(
    models: SDXLModels, settings: SamplerSettings, canvas: Canvas | None
) -> tuple[type[DiffusionPipeline], Mapping[str, object]]:
    """Return the pipeline that makes such a picture, and the arguments that only it has.

    Pictures go in as latents: pipelines would encode them themselves, and leave the VAE in half
    precision.
    """
    size = {"height": settings.height_px, "width": settings.width_px}
    if canvas is None or (canvas.mask is None and canvas.strength == 1):
        # diffusers' image to image would leave a trace: its first step is not pure noise
        return StableDiffusionXLPipeline, size
    start = {"image": canvas.latents, "strength": canvas.strength}
    if canvas.mask is None:
        return StableDiffusionXLImg2ImgPipeline, start
    masked = {"mask_image": canvas.mask}
    if models.is_inpainting:
        masked["masked_image_latents"] = canvas.masked_latents
    return StableDiffusionXLInpaintPipeline, start | size | masked


def _blank_canvas(models: SDXLModels, settings: SamplerSettings) -> Canvas:
    """Return an empty picture of which everything is repainted."""
    size = (settings.height_px, settings.width_px)
    picture = torch.zeros(1, 3, *size, device=models.vae.device)
    mask = torch.ones(1, 1, *size, device=models.vae.device)
    masked_latents = inpainting_channels(models.vae, picture, mask)[:, 1:]
    return Canvas(latents=masked_latents, strength=1.0, mask=mask, masked_latents=masked_latents)


def _noisy_outside(
    canvas: Canvas,
    latents: Tensor,
    scheduler: SchedulerMixin,
    generators: Sequence[torch.Generator],
    denoising_end: float,
) -> Tensor:
    """Give what is not repainted the noise of where the denoising stopped.

    diffusers' inpainting takes its last step for the end and leaves it clean.
    """
    steps = scheduler.config["num_train_timesteps"]
    rest = scheduler.timesteps[scheduler.timesteps < round(steps - denoising_end * steps)]
    if len(rest) == 0:
        return latents
    noise = torch.cat([torch.randn(1, *latents.shape[1:], generator=g) for g in generators])
    clean = canvas.latents.to(latents).repeat(len(latents), 1, 1, 1)
    noisy = scheduler.add_noise(clean, noise.to(latents), rest[:1].repeat(len(latents)))
    assert canvas.mask is not None
    cells = functional.interpolate(canvas.mask, size=latents.shape[-2:], mode="nearest")
    return torch.where(cells.to(latents.device) > 0, latents, noisy)
