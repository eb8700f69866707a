"""A second U-Net that finishes what the base began (SDXL, arXiv:2307.01952, section 2.5)."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import (
    SchedulerMixin,
    StableDiffusionXLImg2ImgPipeline,
)
from torch import Tensor

from inference.request import BASE_IMAGE_STRENGTH
from sdxl.models import SDXLModels, load_unet
from sdxl.pipeline import GuidancePair, SamplerSettings, build_pipeline, guidance_arguments
from sdxl.prompt import PromptEmbeds


class Refiner:
    """A refiner, or an SDXL base in its place; everything but the U-Net is the base's.

    SDXL's refiner reads the second text encoder alone, and an aesthetic score. That encoder is the
    base's, with the fine-tune's tokens in it: what was learned has its name in the refiner too.
    """

    def __init__(self, directory: Path, models: SDXLModels) -> None:
        """Load the U-Net to where the base's is, in its dtype.

        Args:
            directory: With `unet/` and `model_index.json`.
            models: Of the base.

        Raises:
            ValueError: It does not go with this base.
        """
        self._models = models
        width = models.text_encoder_2.config.hidden_size
        both = models.text_encoder.config.hidden_size + width
        self._unet = load_unet(directory, models.unet.device, models.unet.dtype)
        self._reads = self._unet.config["cross_attention_dim"]
        if self._reads not in (width, both) or self._unet.config["in_channels"] != 4:
            raise ValueError(
                f"the refiner {str(directory)!r} reads prompts of {self._reads} numbers a token, "
                f"and this base's text encoders give {width} or {both}: it belongs to another "
                "base model (environment variable REFINER_MODEL)"
            )
        index = json.loads((directory / "model_index.json").read_text(encoding="utf-8"))
        self._reads_score = bool(index.get("requires_aesthetics_score", False))

    def finish(
        self,
        latents: Tensor,
        scheduler: SchedulerMixin,
        guidance: GuidancePair,
        generators: Sequence[torch.Generator],
        settings: SamplerSettings,
        denoising_start: float | None = None,
        show_progress: bool = False,
    ) -> Tensor:
        """Return the latents refined, (B, 4, h, w).

        Args:
            latents: As the base left them.
            scheduler: A new one of the kind that the base had: both walk the same noise levels.
            guidance: As the base had it.
            generators: As the base had them.
            settings: As the base had them; steps are those of the whole way.
            denoising_start: Where the base stopped, in (0, 1): `expert_ensemble_refiner`. None adds
                noise to finished pictures and takes it away again: `base_image_refiner`.
            show_progress: Log a bar.
        """
        pipeline = build_pipeline(
            StableDiffusionXLImg2ImgPipeline,
            self._models,
            scheduler,
            show_progress,
            unet=self._unet,
            requires_aesthetics_score=self._reads_score,
        )
        return pipeline(
            **guidance_arguments(self._in_its_words(guidance), settings),
            image=latents,
            strength=BASE_IMAGE_STRENGTH,
            num_inference_steps=settings.num_inference_steps,
            generator=list(generators),
            denoising_start=denoising_start,
            output_type="latent",
        ).images

    def _in_its_words(self, guidance: GuidancePair) -> GuidancePair:
        """Return of both encoders' states, side by side, what the U-Net reads: the last ones."""
        return GuidancePair(self._tail(guidance.positive), self._tail(guidance.negative))

    def _tail(self, embeds: PromptEmbeds) -> PromptEmbeds:
        states = embeds.prompt_embeds[..., -self._reads :]
        return PromptEmbeds(states, embeds.pooled_prompt_embeds)
