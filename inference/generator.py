"""A loaded model that turns requests into pictures."""

import logging

import torch
from PIL import Image

from inference.fine_tune import AppliedFineTune
from inference.request import GenerationRequest
from inference.schedulers import build_scheduler
from sdxl.concept import expand, occurs
from sdxl.downloads import BaseModelFiles
from sdxl.models import load_models
from sdxl.pipeline import SamplerSettings, sample
from sdxl.weights.trained import TrainedWeights

logger = logging.getLogger(__name__)


class PictureGenerator:
    """A base model, perhaps with trained weights, on the GPU if there is one."""

    def __init__(self, base: BaseModelFiles, weights: TrainedWeights | None) -> None:
        """Load the base model and apply the weights.

        Args:
            base: The base model.
            weights: What was trained; None serves the base model itself.

        Raises:
            ValueError: The weights were trained on another base model.
        """
        has_gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if has_gpu else "cpu")
        dtype = torch.float16 if has_gpu else torch.float32
        self._models = load_models(base.weights, self.device, dtype, base.configs)
        self._fine_tune = AppliedFineTune(weights, self._models) if weights else None

    def generate(self, request: GenerationRequest) -> list[Image.Image]:
        """Make the pictures of a request; the same request gives the same pictures.

        Raises:
            ValueError: The scheduler does not exist.
        """
        scheduler = build_scheduler(request.scheduler, self._models.scheduler_config)
        native = self._models.native_size_px
        settings = SamplerSettings(
            height_px=request.height or native,
            width_px=request.width or native,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            negative_prompt=self._expand(request.negative_prompt),
        )
        pooling = "end_of_text"
        if self._fine_tune:
            self._fine_tune.set_scale(request.lora_scale)
            self._warn_without_trigger(request.prompt)
            pooling = self._fine_tune.weights.pooling
        prompts = [self._expand(request.prompt)] * request.num_outputs
        return sample(self._models, scheduler, prompts, request.seeds, settings, pooling)

    def _expand(self, prompt: str) -> str:
        return expand(prompt, self._fine_tune.weights.concepts if self._fine_tune else ())

    def _warn_without_trigger(self, prompt: str) -> None:
        assert self._fine_tune
        triggers = [concept.trigger for concept in self._fine_tune.weights.concepts]
        if triggers and not any(occurs(trigger, prompt) for trigger in triggers):
            logger.warning(
                "The prompt does not contain %s, the word that was trained.", " or ".join(triggers)
            )
