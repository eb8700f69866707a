"""Cog's door to prediction: inputs -> GenerationRequest and fine-tunes -> pictures."""

import logging
import os
import secrets
from dataclasses import fields, replace
from pathlib import Path as LocalPath
from tempfile import TemporaryDirectory
from typing import Optional

from cog import BasePredictor, Input, Path

from inference.fine_tunes import FineTune
from inference.generator import PictureGenerator, load_for_pictures
from inference.metadata import picture_text
from inference.output import OutputSettings, save_pictures
from inference.pictures import read_image, read_mask
from inference.request import MAX_OUTPUTS, MAX_SEED, GenerationRequest
from inference.safety import SafetyChecker
from inference.watermark import watermarked
from inference.weights_cache import WeightsCache, source_name
from sdxl.downloads import (
    SAFETY_CHECKER,
    is_same_base,
    resolve_base,
    resolve_model,
    resolve_refiner,
    resolve_vae,
)
from sdxl.logs import configure_logging

logger = logging.getLogger(__name__)


class Predictor(BasePredictor):
    """Serves a base model, with the weights of `setup` or those that a request names."""

    def setup(self, weights: Path | str | None = None) -> None:
        """Load the model once, before the first request.

        The environment: `BASE_MODEL`, `REFINER_MODEL`, `VAE_MODEL` name models, `COMPILE=1`
        compiles the U-Net.

        Args:
            weights: The archive of a training, or any LoRA or embedding for SDXL: a file, folder,
                address, repository or data: URL (`COG_WEIGHTS`). Without it the base model is
                served.
        """
        configure_logging()
        self.weights_cache = WeightsCache()
        self.baked: Optional[FineTune] = None
        recorded = None
        if weights:
            trained = self.weights_cache.load(str(weights), "weights")
            self.baked = FineTune(name=source_name(str(weights)), weights=trained)
            recorded = trained.base_model
        self.base_model = recorded or os.environ.get("BASE_MODEL") or "sdxl"
        logger.info(
            "Base model %s, %s.",
            self.base_model,
            self.baked.name if self.baked else "no trained weights",
        )
        refiner = os.environ.get("REFINER_MODEL") or (
            "pocket" if self.base_model == "pocket" else "sdxl"
        )
        vae = os.environ.get("VAE_MODEL")
        base = resolve_base(self.base_model)
        self.generator = PictureGenerator(
            load_for_pictures(base, resolve_vae(vae) if vae else None),
            find_refiner=lambda: resolve_refiner(refiner),
            compile_backend="inductor" if os.environ.get("COMPILE") == "1" else None,
        )
        self.safety_checker: Optional[SafetyChecker] = None
        self.out_dir: Optional[TemporaryDirectory[str]] = None

    def predict(
        self,
        prompt: str = Input(
            description="What to show. Write the trained word, such as TOK, for what was learned. (word:1.3) weighs a part.",
            default="An astronaut riding a rainbow unicorn",
        ),
        negative_prompt: str = Input(description="What to stay away from.", default=""),
        image: Optional[Path] = Input(
            description="A picture to start from (image to image), or to repaint where the mask is white.",
            default=None,
        ),
        mask: Optional[Path] = Input(
            description="What of the image to repaint: white is made anew, black stays as it is, pixel for pixel (but for the watermark).",
            default=None,
        ),
        width: Optional[int] = Input(
            description="Width in pixels, rounded to a multiple of 8. Empty is the image's, else the base model's own size, 1024 for SDXL.",
            default=None,
            ge=64,
            le=2048,
        ),
        height: Optional[int] = Input(
            description="Height in pixels, rounded to a multiple of 8. Empty is the image's, else the base model's own size, 1024 for SDXL.",
            default=None,
            ge=64,
            le=2048,
        ),
        num_outputs: int = Input(description="Number of pictures.", default=1, ge=1, le=4),
        scheduler: str = Input(
            description="The sampler. LCM and EulerTrailing are for models that are distilled to few steps.",
            default="K_EULER",
            choices=[
                "DDIM",
                "DPMSolverMultistep",
                "HeunDiscrete",
                "KarrasDPM",
                "K_EULER_ANCESTRAL",
                "K_EULER",
                "PNDM",
                "DPM++2MSDE",
                "LCM",
                "UniPC",
                "EulerTrailing",
            ],
        ),
        num_inference_steps: int = Input(description="Denoising steps.", default=50, ge=1, le=500),
        guidance_scale: float = Input(
            description="How closely to follow the prompt (classifier-free guidance).",
            default=7.5,
            ge=1,
            le=50,
        ),
        prompt_strength: float = Input(
            description="With an image: 0 gives it back, 1 leaves nothing of it.",
            default=0.8,
            ge=0,
            le=1,
        ),
        seed: Optional[int] = Input(
            description="The same seed gives the same picture; the second picture has seed + 1, and so on. Empty picks one, and the log says which.",
            default=None,
            ge=0,
            le=4294967291,
        ),
        refine: str = Input(
            description="Whether a refiner goes on: with the last part of the noise (expert_ensemble_refiner, high_noise_frac), or on finished pictures (base_image_refiner, refine_steps).",
            default="no_refiner",
            choices=["no_refiner", "expert_ensemble_refiner", "base_image_refiner"],
        ),
        high_noise_frac: float = Input(
            description="With expert_ensemble_refiner: the part of the noise that the base model removes.",
            default=0.8,
            ge=0,
            le=1,
        ),
        refine_steps: Optional[int] = Input(
            description="With base_image_refiner: the refiner's steps, of which it does 30 %. Empty is num_inference_steps.",
            default=None,
            ge=1,
            le=500,
        ),
        apply_watermark: bool = Input(
            description="Mark the pictures, invisibly, as made by a machine. Pictures of fewer than 256x256 pixels are not marked.",
            default=True,
        ),
        lora_scale: float = Input(
            description="How strongly the trained LoRA acts: 0 not at all, 1 as it was trained, below 0 away from it.",
            default=0.6,
            ge=-1,
            le=2,
        ),
        replicate_weights: Optional[str] = Input(
            description="Trained weights to use instead of those that this model was made with: the address of an archive, or any LoRA for SDXL (address, Hugging Face repository, Civitai or Replicate model).",
            default=None,
        ),
        disable_safety_checker: bool = Input(
            description="Show every picture, without looking for unsafe content.", default=False
        ),
        aspect_ratio: str = Input(
            description="Shape of the pictures, in SDXL's own sizes. custom is width and height.",
            default="custom",
            choices=[
                "custom",
                "1:1",
                "5:4",
                "4:3",
                "3:2",
                "16:9",
                "21:9",
                "4:5",
                "3:4",
                "2:3",
                "9:16",
                "9:21",
            ],
        ),
        guidance_rescale: float = Input(
            description="Against burnt colors at a high guidance_scale: 0 is off, 0.7 is usual.",
            default=0.0,
            ge=0,
            le=1,
        ),
        extra_lora: Optional[str] = Input(
            description="More LoRAs on top, with a comma between them and a scale behind a colon: https://example.com/style.safetensors:0.8, owner/model",
            default=None,
        ),
        output_format: str = Input(
            description="Format of the picture files.",
            default="png",
            choices=["png", "webp", "jpg"],
        ),
        output_quality: int = Input(
            description="Quality of webp and jpg files; png is without loss.",
            default=90,
            ge=1,
            le=100,
        ),
        embed_metadata: bool = Input(
            description="Write prompt, seed and settings into the picture files, as AUTOMATIC1111 does.",
            default=True,
        ),
    ) -> list[Path]:
        """Make pictures."""
        inputs = dict(locals())  # every input under its name
        if self.out_dir:
            self.out_dir.cleanup()  # the caller has them
        output = OutputSettings(output_format=output_format, output_quality=output_quality)
        inputs["seed"] = secrets.randbelow(MAX_SEED - MAX_OUTPUTS) if seed is None else seed
        if image:
            inputs["image"] = read_image(LocalPath(image))
            inputs["mask"] = read_mask(LocalPath(mask), inputs["image"].size) if mask else None
        request = GenerationRequest(**{f.name: inputs[f.name] for f in fields(GenerationRequest)})
        checker = None if disable_safety_checker else self._load_safety_checker()
        fine_tunes = self._find_fine_tunes(lora_scale, replicate_weights, extra_lora)
        logger.info("Seeds: %s", ", ".join(map(str, request.seeds)))
        pictures = self.generator.generate(request, fine_tunes)
        shown = list(zip(pictures, request.seeds, strict=True))
        if checker:
            shown = checker.allowed(pictures, request.seeds)
        texts = None
        if embed_metadata:
            base = source_name(self.base_model)
            sources = [(each.name, each.scale) for each in fine_tunes]
            texts = [
                picture_text(request, picture.size, each, base, sources) for picture, each in shown
            ]
        pictures = [picture for picture, _ in shown]
        if apply_watermark:
            pictures = watermarked(pictures)
        self.out_dir = TemporaryDirectory(prefix="sdxl-pictures-")
        return [
            Path(p) for p in save_pictures(pictures, LocalPath(self.out_dir.name), output, texts)
        ]

    def _find_fine_tunes(
        self, lora_scale: float, replicate_weights: str | None, extra_lora: str | None
    ) -> list[FineTune]:
        """Return what the request asks for: its own weights, else the baked ones, and the extra."""
        main = self.baked
        if replicate_weights:
            weights = self.weights_cache.load(replicate_weights, "replicate_weights")
            main = FineTune(name=source_name(replicate_weights), weights=weights)
        extra = self.weights_cache.load_extra(extra_lora or "")
        fine_tunes = [*([replace(main, scale=lora_scale)] if main else []), *extra]
        for each in fine_tunes:
            trained_on = each.weights.base_model
            if trained_on and not is_same_base(trained_on, self.base_model):
                logger.warning(
                    "%s was trained on %s, and this is %s.", each.name, trained_on, self.base_model
                )
        return fine_tunes

    def _load_safety_checker(self) -> SafetyChecker:
        if self.safety_checker is None:
            try:
                directory = resolve_model(SAFETY_CHECKER.repo)
            except ValueError as error:
                raise ValueError(
                    f"the safety checker cannot be used: {error}. "
                    "disable_safety_checker=true makes pictures without it"
                ) from error
            self.safety_checker = SafetyChecker(directory, self.generator.device)
        return self.safety_checker
