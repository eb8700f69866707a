"""Cog's door to prediction: inputs -> GenerationRequest -> pictures."""

import logging
import os
import secrets
import tempfile
from pathlib import Path as LocalPath
from typing import Optional

from cog import BasePredictor, Input, Path

from inference.generator import PictureGenerator
from inference.request import MAX_OUTPUTS, MAX_SEED, GenerationRequest
from inference.safety import SAFETY_CHECKER_REPO, SafetyChecker
from sdxl.downloads import default_cache_dir, fetch_file, resolve_base, resolve_model
from sdxl.logs import configure_logging
from sdxl.weights.reading import read_weights

logger = logging.getLogger(__name__)

MAX_SOURCE_SHOWN = 200  # characters: a data: URL holds the whole file


class Predictor(BasePredictor):
    """Serves a base model, with the weights that `setup` was given."""

    def setup(self, weights: Path | str | None = None) -> None:
        """Load the model once, before the first request.

        Args:
            weights: The archive of a training, or any LoRA or embedding for SDXL: a file, folder,
                address or data: URL (`COG_WEIGHTS`). Without it the base model is served.
        """
        configure_logging()
        trained = None
        if weights:
            trained = read_weights(fetch_file(str(weights), default_cache_dir()))
        recorded = trained.base_model if trained else None
        base_model = recorded or os.environ.get("BASE_MODEL") or "sdxl"
        source = str(weights)[:MAX_SOURCE_SHOWN] if weights else "no trained weights"
        logger.info("Base model %s, %s.", base_model, source)
        self.generator = PictureGenerator(resolve_base(base_model), trained)
        self.safety_checker: Optional[SafetyChecker] = None

    def predict(
        self,
        prompt: str = Input(
            description="What to show. Write the trained word, such as TOK, for what was learned.",
            default="An astronaut riding a rainbow unicorn",
        ),
        negative_prompt: str = Input(description="What to stay away from.", default=""),
        width: Optional[int] = Input(
            description="Width in pixels, a multiple of 8. Empty is the base model's own size, 1024 for SDXL.",
            default=None,
            ge=64,
            le=2048,
        ),
        height: Optional[int] = Input(
            description="Height in pixels, a multiple of 8. Empty is the base model's own size, 1024 for SDXL.",
            default=None,
            ge=64,
            le=2048,
        ),
        num_outputs: int = Input(description="Number of pictures.", default=1, ge=1, le=4),
        scheduler: str = Input(
            description="The sampler.",
            default="K_EULER",
            choices=[
                "DDIM",
                "DPMSolverMultistep",
                "HeunDiscrete",
                "KarrasDPM",
                "K_EULER_ANCESTRAL",
                "K_EULER",
                "PNDM",
            ],
        ),
        num_inference_steps: int = Input(description="Denoising steps.", default=50, ge=1, le=500),
        guidance_scale: float = Input(
            description="How closely to follow the prompt (classifier-free guidance).",
            default=7.5,
            ge=1,
            le=50,
        ),
        seed: Optional[int] = Input(
            description="The same seed gives the same picture; the second picture has seed + 1, and so on. Empty picks one, and the log says which.",
            default=None,
            ge=0,
            le=4294967291,
        ),
        lora_scale: float = Input(
            description="How strongly the trained LoRA acts: 0 not at all, 1 as it was trained.",
            default=0.6,
            ge=0,
            le=1,
        ),
        disable_safety_checker: bool = Input(
            description="Show every picture, without looking for unsafe content.", default=False
        ),
    ) -> list[Path]:
        """Make pictures."""
        request = GenerationRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            width=width,
            height=height,
            num_outputs=num_outputs,
            scheduler=scheduler,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            seed=secrets.randbelow(MAX_SEED - MAX_OUTPUTS) if seed is None else seed,
            lora_scale=lora_scale,
        )
        checker = None if disable_safety_checker else self._load_safety_checker()
        logger.info("Seeds: %s", ", ".join(map(str, request.seeds)))
        pictures = self.generator.generate(request)
        if checker:
            pictures = checker.without_flagged(pictures)
        out_dir = LocalPath(tempfile.mkdtemp(prefix="sdxl-pictures-"))
        paths = [Path(out_dir / f"out-{i}.png") for i in range(len(pictures))]
        for picture, path in zip(pictures, paths, strict=True):
            picture.save(path)
        return paths

    def _load_safety_checker(self) -> SafetyChecker:
        if self.safety_checker is None:
            try:
                directory = resolve_model(SAFETY_CHECKER_REPO)
            except ValueError as error:
                raise ValueError(
                    f"the safety checker cannot be used: {error}. "
                    "disable_safety_checker=true makes pictures without it"
                ) from error
            self.safety_checker = SafetyChecker(directory, self.generator.device)
        return self.safety_checker
