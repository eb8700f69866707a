"""A training with the real loop, timed before and after the pivot."""

import gc
import math
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from bench.speed.compute import FORWARDS_PER_STEP, now, unet_forward_flop
from bench.speed.waiting import host_waits
from preprocess.manifest import Manifest, TrainingExample
from sdxl.models import SDXLModels
from trainer.config import GradientCheckpointing, Method, TrainConfig
from trainer.dataset import LatentDataset
from trainer.hardware import choose_gradient_checkpointing
from trainer.loop import train_loop
from trainer.prepare import add_trainables, set_training_mode

Phase = Literal["inversion", "tuning"]
PHASES: tuple[Phase, Phase] = ("inversion", "tuning")
"""Before the pivot embeddings and U-Net train together, after it the U-Net alone."""
LoadModels = Callable[[torch.device, torch.dtype], SDXLModels]
NUM_PICTURES = 4
_GB = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What is trained, and of which steps each phase is made, in this order.

    Attributes:
        resolution: Side of the pictures, px.
        batch_size: Pictures per step.
        method: As the input of that name.
        gradient_checkpointing: Likewise.
        warmup_steps: Not measured; after the pivot the first of them encodes the captions.
        measured_steps: The host waits for the device at their ends alone.
        watched_steps: Those in which it is counted how often the host waits for a GPU.
    """

    resolution: int
    batch_size: int
    method: Method = "lora"
    gradient_checkpointing: GradientCheckpointing = "auto"
    warmup_steps: int
    measured_steps: int
    watched_steps: int

    def __post_init__(self) -> None:
        """Check what the trainer's settings have to be; see `TrainConfig`.

        Raises:
            ValueError: A value is out of range; the text names it and what is allowed.
        """
        self.config()

    @property
    def phase_steps(self) -> int:
        """The number of steps of each phase."""
        return self.warmup_steps + self.measured_steps + self.watched_steps

    def config(self) -> TrainConfig:
        """Return the trainer's settings; what is not named here has its default."""
        num_steps = 2 * self.phase_steps
        return TrainConfig(
            resolution=self.resolution,
            train_batch_size=self.batch_size,
            max_train_steps=num_steps,
            num_train_epochs=num_steps,  # an epoch has one step at least: it ends no run
            method=self.method,
            ti_train_fraction=0.5,
            gradient_checkpointing=self.gradient_checkpointing,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseFigures:
    """What was measured of a phase.

    Attributes:
        seconds_per_step: Mean of the measured steps.
        images_per_second: Pictures trained on.
        flop_per_second: Of the model; see `bench.speed.compute.FORWARDS_PER_STEP`.
        peak_gb: On a GPU the most that the measured steps had allocated there; elsewhere the most
            memory that the process has had since its start.
        host_waits: How often the watched steps made the host wait for the GPU, by place.
    """

    seconds_per_step: float
    images_per_second: float
    flop_per_second: float
    peak_gb: float
    host_waits: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFigures:
    """What was measured of a training.

    Attributes:
        workload: What was trained.
        gradient_checkpointing: What became of the setting.
        forward_flop: Of the U-Net, for one picture.
        seconds_to_first_step: From the start of loading the models to the end of the first step.
        first_step_seconds: Of these the first step: kernels are loaded and chosen, memory is taken.
        has_finite_losses: Whether all are; numbers that are none can make a GPU faster.
        phases: The figures of each.
    """

    workload: Workload
    gradient_checkpointing: bool
    forward_flop: int
    seconds_to_first_step: float
    first_step_seconds: float
    has_finite_losses: bool
    phases: dict[Phase, PhaseFigures]


class Stopwatch:
    """Reads the time after steps of `train_loop`, whose callback `after_step` is."""

    def __init__(self, workload: Workload, device: torch.device, watching: ExitStack) -> None:
        """Wait for the first step.

        Args:
            workload: Its steps.
            device: Of the training.
            watching: Left when the watched steps are over, or when the training fails.
        """
        self._workload, self._device, self._watching = workload, device, watching
        self.first_step_end = math.nan
        self.seconds: list[float] = []
        self.peaks_gb: list[float] = []
        self.host_waits: list[Counter[str]] = []

    def after_step(self, step: int, _losses: Tensor) -> None:
        """Take note of `step` steps done."""
        work = self._workload
        if step == 1:
            self.first_step_end = now(self._device)
        done = (step - 1) % work.phase_steps + 1
        if done == work.warmup_steps:
            _forget_peak(self._device)
            self._window_start = now(self._device)
        if done == work.warmup_steps + work.measured_steps:
            self.seconds.append(now(self._device) - self._window_start)
            self.peaks_gb.append(_peak_gb(self._device))
            self.host_waits.append(self._watching.enter_context(host_waits(self._device)))
        if done == work.phase_steps:
            self._watching.close()


def measure(load: LoadModels, workload: Workload, accelerator: Accelerator) -> RunFigures:
    """Train random pictures and return what it took.

    Args:
        load: Gives models of the run's own, frozen, on a device and in a dtype.
        workload: What is trained.
        accelerator: Device and precision.
    """
    device, config = accelerator.device, workload.config()
    gc.collect()  # models refer to each other: those of the run before may still be there
    started = now(device)
    models = load(device, compute_dtype(accelerator))
    if config.method == "full":
        models.unet.to(torch.float32)  # as in `load_base`
    checkpointing = choose_gradient_checkpointing(
        config.gradient_checkpointing, models, config, device
    )
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        manifest = random_pictures(Path(folder), workload.resolution)
        dataset = LatentDataset(manifest, models.vae)
    models.vae.to("cpu")
    set_training_mode(models, True, checkpointing)
    embeddings = add_trainables(models, config)
    ready = now(device)
    with ExitStack() as watching:
        stopwatch = Stopwatch(workload, device, watching)
        losses = train_loop(
            models,
            embeddings,
            config.concepts,
            dataset,
            None,
            config,
            accelerator,
            stopwatch.after_step,
        )
    cells = workload.resolution // models.vae_scale_factor
    forward_flop = unet_forward_flop(models.unet, cells, cells)
    return RunFigures(
        workload=workload,
        gradient_checkpointing=checkpointing,
        forward_flop=forward_flop,
        seconds_to_first_step=stopwatch.first_step_end - started,
        first_step_seconds=stopwatch.first_step_end - ready,
        has_finite_losses=all(map(math.isfinite, losses)),
        phases=_phase_figures(stopwatch, workload, forward_flop),
    )


def compute_dtype(accelerator: Accelerator) -> torch.dtype:
    """Return the dtype of the frozen base, in which nearly all is computed."""
    return torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32


def random_pictures(directory: Path, side_px: int) -> Manifest:
    """Write square pictures of noise to `directory`, and return their manifest."""
    rng = np.random.default_rng(0)
    size = (side_px, side_px)
    examples = []
    for i in range(NUM_PICTURES):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{i}.png")
        example = TrainingExample(
            example_id=str(i),
            image_path=f"{i}.png",
            mask_path=None,
            caption=f"a photo of TOK, picture {i}",
            source_name=f"{i}.png",
            original_size=size,
            crop_top_left=(0, 0),
            target_size=size,
            notes=(),
        )
        examples.append(example)
    return Manifest(directory=directory, examples=tuple(examples))


def _phase_figures(
    stopwatch: Stopwatch, workload: Workload, forward_flop: int
) -> dict[Phase, PhaseFigures]:
    figures: dict[Phase, PhaseFigures] = {}
    for i, phase in enumerate(PHASES):
        images_per_second = workload.batch_size * workload.measured_steps / stopwatch.seconds[i]
        figures[phase] = PhaseFigures(
            seconds_per_step=stopwatch.seconds[i] / workload.measured_steps,
            images_per_second=images_per_second,
            flop_per_second=images_per_second * FORWARDS_PER_STEP[workload.method] * forward_flop,
            peak_gb=stopwatch.peaks_gb[i],
            host_waits=dict(stopwatch.host_waits[i]),
        )
    return figures


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _GB
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GB
