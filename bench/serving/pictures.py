"""How long pictures take: the first, warm ones, those right after a swap, and of every mode."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from bench.serving.weights import lora_fine_tune, whole_fine_tune
from bench.speed.compute import now
from inference.fine_tunes import FineTune
from inference.generator import PictureGenerator
from inference.request import GenerationRequest
from sdxl.models import SDXLModels
from sdxl.pipeline import encode_guidance

WARM = "warm picture"
WARM_FINE_TUNED = "warm picture of a fine-tune"


class PictureTimer:
    """Times requests.

    Attributes:
        seconds: What was measured, by name, in order.
    """

    def __init__(
        self, models: SDXLModels, refiner: Path | None, tries: int, compile_backend: str | None
    ) -> None:
        """Serve `models`; see `measure_pictures`."""

        def find_refiner() -> Path:
            assert refiner, "no mode with a refiner is asked for without one"
            return refiner

        self._generator = PictureGenerator(models, find_refiner, compile_backend)
        self._device = models.unet.device
        self._tries = tries
        self.seconds: dict[str, float] = {}

    def once(
        self, name: str, request: GenerationRequest, fine_tunes: Sequence[FineTune] = ()
    ) -> Image.Image:
        """Time one request, and return its first picture."""
        started = now(self._device)
        pictures = self._generator.generate(request, fine_tunes)
        self.seconds[name] = now(self._device) - started
        return pictures[0]

    def median(
        self,
        name: str,
        request: GenerationRequest,
        fine_tunes: Sequence[FineTune] = (),
        after: Sequence[FineTune] | None = None,
    ) -> None:
        """Take the median of several times, each right after a short picture of `after`.

        Without `after` the same fine-tunes act before.
        """
        taken = []
        short = GenerationRequest(
            prompt=request.prompt, num_inference_steps=1, guidance_scale=request.guidance_scale
        )
        for _ in range(self._tries):
            self._generator.generate(short, fine_tunes if after is None else after)
            self.once(name, request, fine_tunes)
            taken.append(self.seconds[name])
        self.seconds[name] = statistics.median(taken)


def measure_pictures(
    models: SDXLModels,
    request: GenerationRequest,
    refiner: Path | None,
    tries: int,
    compile_backend: str | None = None,
) -> dict[str, float]:
    """Return the seconds that each kind of picture takes.

    Args:
        models: Of the bare base, for this alone.
        request: Plain: a prompt, steps and guidance.
        refiner: Its directory; None leaves the refiner's modes out.
        tries: Of which the median is taken.
        compile_backend: As `PictureGenerator` has it.
    """
    first, second = (lora_fine_tune(models, seed) for seed in range(2))
    other, whole = lora_fine_tune(models, 2, "all"), whole_fine_tune(models)
    timer = PictureTimer(models, refiner, tries, compile_backend)
    picture = timer.once("first picture", request)
    timer.median(WARM, request)
    timer.median(WARM_FINE_TUNED, request, [first])
    for name, fine_tunes in (
        ("another of the same layers", [second]),
        ("one of other layers", [other]),
        ("a whole U-Net", [whole]),
        ("the base", []),
    ):
        timer.median(f"right after swapping the fine-tune for {name}", request, fine_tunes, [first])
    from_image = replace(request, image=picture)
    timer.median(f"image to image, {request.prompt_strength:.0%} of the steps", from_image)
    timer.median("inpainting of a half", replace(from_image, mask=_half_mask(picture.size)))
    if refiner:
        expert = replace(request, refine="expert_ensemble_refiner")
        timer.once("first picture with a refiner, which is loaded", expert)
        timer.median("expert_ensemble_refiner", expert)
        timer.median("base_image_refiner", replace(request, refine="base_image_refiner"))
    started = now(models.unet.device)
    for _ in range(tries):
        encode_guidance(models, [request.prompt], request.negative_prompt, "end_of_text")
    encoding = (now(models.unet.device) - started) / tries
    return timer.seconds | {"encoding the prompts alone": encoding}


def _half_mask(size: tuple[int, int]) -> Image.Image:
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 255
    return Image.fromarray(mask)
