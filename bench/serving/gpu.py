"""Pictures of SDXL at its full size on a GPU, with and without compiling, against the floor."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.serving.pictures import WARM, measure_pictures
from bench.speed.compute import unet_forward_flop
from inference.request import GenerationRequest
from sdxl.models import SDXLModels

PASSES_PER_STEP = 2
"""Of the U-Net: with the prompt and with the negative one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuFigures:
    """What was measured of a model that was compiled, or was not.

    Attributes:
        seconds: Of each kind of picture; see `measure_pictures`.
        flop: Of the U-Net for one picture, 406 TFLOP for SDXL at 1024 px and 30 steps: the floor.
        peak_bytes: The most that was allocated on the GPU; 0 without one.
    """

    seconds: dict[str, float]
    flop: int
    peak_bytes: int

    @property
    def flop_per_second(self) -> float:
        """Of a warm picture."""
        return self.flop / self.seconds[WARM]


def measure_on_gpu(
    load: Callable[[], SDXLModels],
    request: GenerationRequest,
    tries: int,
    compile_backend: str | None,
) -> GpuFigures:
    """Measure pictures of the model's own size.

    Args:
        load: Gives models for this alone.
        request: Plain, with a guidance_scale above 1.
        tries: Of which the median is taken.
        compile_backend: As `PictureGenerator` has it.
    """
    models = load()
    has_gpu = models.unet.device.type == "cuda"
    if has_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = measure_pictures(models, request, None, tries, compile_backend)
    cells = models.native_size_px // models.vae_scale_factor
    passes = PASSES_PER_STEP * request.num_inference_steps
    return GpuFigures(
        seconds=seconds,
        flop=passes * unet_forward_flop(models.unet, cells, cells),
        peak_bytes=torch.cuda.max_memory_allocated() if has_gpu else 0,
    )
