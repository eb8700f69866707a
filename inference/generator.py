"""A loaded model that turns requests into pictures."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import SchedulerMixin
from PIL import Image
from torch import Tensor

from inference.canvas import build_canvas, keep_unmasked
from inference.fine_tunes import FineTune, FineTunes
from inference.pictures import fit, fit_mask
from inference.refiner import Refiner
from inference.request import GenerationRequest
from inference.schedulers import build_scheduler
from inference.sizes import picture_size
from sdxl.concept import expand, occurs
from sdxl.downloads import BaseModelFiles
from sdxl.models import SDXLModels, load_models
from sdxl.pipeline import (
    GuidancePair,
    SamplerSettings,
    decode,
    denoise,
    encode_guidance,
    seeded,
)

logger = logging.getLogger(__name__)

WHOLE_AREA_PX = 1536 * 1536
"""Larger pictures go through the VAE in tiles, which need less memory but show a little."""
MAX_GRAPHS = 64


def load_for_pictures(base: BaseModelFiles, vae: Path | None = None) -> SDXLModels:
    """Load a base model in half precision on the GPU if there is one, else in float32 on the CPU.

    Args:
        base: The base model.
        vae: The directory of a VAE instead of the base's.
    """
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    dtype = torch.float16 if has_gpu else torch.float32
    return load_models(base.weights, device, dtype, base.configs, vae)


def _check_handover(scheduler: SchedulerMixin, request: GenerationRequest) -> None:
    """See that the base has a step to do before a refiner takes over."""
    if request.denoising_end is None:
        return
    scheduler.set_timesteps(request.num_inference_steps)
    first = float(scheduler.timesteps[0]) / scheduler.config["num_train_timesteps"]
    if first < 1 - request.denoising_end:
        raise ValueError(
            f"num_inference_steps={request.num_inference_steps} leave the base model no step "
            f"before the refiner takes over at high_noise_frac={request.high_noise_frac:g}: take "
            "more steps"
        )


class PictureGenerator:
    """A base model that makes pictures, with whatever fine-tunes each request asks for."""

    def __init__(
        self,
        models: SDXLModels,
        find_refiner: Callable[[], Path],
        compile_backend: str | None = None,
    ) -> None:
        """Serve `models`.

        Args:
            models: Of the bare base.
            find_refiner: Gives the refiner's directory when it is first asked for.
            compile_backend: Of `torch.compile`, such as `inductor`: the repeated blocks of the
                U-Net are compiled at the first picture, once for all sizes, and a fine-tune that
                fits into the place of another needs no new compiling. None does not compile.
        """
        self.device = models.unet.device
        self._models = models
        self._fine_tunes = FineTunes(models)
        self._find_refiner = find_refiner
        self._refiner: Refiner | None = None
        if compile_backend:
            # every kind of LoRA that comes along is a graph of its own; beyond these it runs plain
            torch._dynamo.config.recompile_limit = MAX_GRAPHS
            models.unet.compile_repeated_blocks(dynamic=True, backend=compile_backend)

    def generate(
        self, request: GenerationRequest, fine_tunes: Sequence[FineTune] = ()
    ) -> list[Image.Image]:
        """Make the pictures of a request; the same request gives the same pictures.

        Args:
            request: What to make.
            fine_tunes: Exactly these act, whatever acted before.

        Raises:
            ValueError: The scheduler does not exist, a fine-tune does not fit this base model, or
                the refiner cannot be had or has too few steps.
        """
        models = self._models
        scheduler = build_scheduler(request.scheduler, models.scheduler_config)
        _check_handover(scheduler, request)
        if request.needs_refiner:
            self._load_refiner()
        self._fine_tunes.apply(fine_tunes)
        self._warn_without_trigger(request.prompt)
        width, height = picture_size(request, models.native_size_px)
        tiled = width * height > WHOLE_AREA_PX
        settings = SamplerSettings(
            height_px=height,
            width_px=width,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            guidance_rescale=request.guidance_rescale,
        )
        guidance = self._encode(request)
        generators = seeded(request.seeds)
        picture = fit(request.image, (width, height)) if request.image else None
        mask = fit_mask(request.mask, (width, height)) if request.mask else None
        canvas = None
        if picture:
            canvas = build_canvas(models, picture, mask, request.prompt_strength, tiled)
        end = request.denoising_end
        latents = denoise(models, scheduler, guidance, generators, settings, canvas, end, True)
        if request.needs_refiner:
            latents = self._refine(latents, request, guidance, generators, settings)
        pictures = decode(models.vae, latents, tiled)
        return keep_unmasked(pictures, picture, mask) if picture and mask else pictures

    def _encode(self, request: GenerationRequest) -> GuidancePair:
        concepts = self._fine_tunes.concepts
        prompts = [expand(request.prompt, concepts)] * request.num_outputs
        negative = expand(request.negative_prompt, concepts)
        return encode_guidance(self._models, prompts, negative, self._fine_tunes.pooling)

    def _warn_without_trigger(self, prompt: str) -> None:
        triggers = [concept.trigger for concept in self._fine_tunes.concepts]
        if triggers and not any(occurs(trigger, prompt) for trigger in triggers):
            logger.warning(
                "The prompt does not contain %s, the word that was trained.", " or ".join(triggers)
            )

    def _load_refiner(self) -> Refiner:
        if self._refiner is None:
            self._refiner = Refiner(self._find_refiner(), self._models)
        return self._refiner

    def _refine(
        self,
        latents: Tensor,
        request: GenerationRequest,
        guidance: GuidancePair,
        generators: list[torch.Generator],
        settings: SamplerSettings,
    ) -> Tensor:
        if request.refine == "base_image_refiner" and request.refine_steps:
            settings = replace(settings, num_inference_steps=request.refine_steps)
        scheduler = build_scheduler(request.scheduler, self._models.scheduler_config)
        refiner, start = self._load_refiner(), request.denoising_end
        return refiner.finish(latents, scheduler, guidance, generators, settings, start, True)
