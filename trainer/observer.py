"""What happens after a training step: progress, checkpoints, sample pictures, trackers."""

import math
import sys
from collections.abc import Callable, Sequence

from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from sdxl.concept import Concept
from sdxl.models import SDXLModels
from sdxl.weights.archive import cog_members
from sdxl.weights.trained import TrainedWeights
from trainer.config import TrainConfig
from trainer.plan import TrainingPlan
from trainer.preview import preview_pictures, sampling
from trainer.progress import TrainingProgress
from trainer.report import Preview
from trainer.tracking import EVENTS_NAME, WandbRun, tensorboard_events


class Observer:
    """Looks on; the training is the same without it.

    Attributes:
        course: The number of steps done, and the sample pictures then.
    """

    def __init__(
        self,
        models: SDXLModels,
        config: TrainConfig,
        accelerator: Accelerator,
        plan: TrainingPlan,
        wandb: WandbRun | None = None,
    ) -> None:
        """Remember what is looked at.

        Args:
            models: In training.
            config: Its `checkpointing_steps`, `sample_every` and the like.
            accelerator: Where and how precisely pictures are made.
            plan: Its schedule and prompts.
            wandb: Gets losses and pictures too.
        """
        self._models, self._config, self._accelerator = models, config, accelerator
        self._plan, self._wandb = plan, wandb
        self._num_steps = plan.schedule.num_steps
        self._checkpoints: dict[str, bytes] = {}
        self.course: list[tuple[int, list[Image.Image]]] = []

    def start(self, collect: Callable[[], TrainedWeights]) -> None:
        """Start the clock of the progress; `collect` gives a copy of the weights as they are."""
        images_per_step = self._config.train_batch_size * self._config.gradient_accumulation_steps
        self._progress = TrainingProgress(self._num_steps, images_per_step, sys.stderr)
        self._collect = collect
        self._learning_rates = self._plan.schedule.courses()

    def after_step(self, step: int, losses: Tensor) -> None:
        """Take note of `step` steps done; `losses` are theirs.

        Raises:
            ValueError: The training diverged; it is seen when a line of progress is due.
        """
        if self._progress.update(step, losses):  # the device has been waited for
            self._look_at(losses.tolist())
        if step == self._num_steps:
            return  # the end has its own pictures and weights
        if step % self._config.checkpointing_steps == 0:
            for name, content in cog_members(self._collect()).items():
                self._checkpoints[f"checkpoints/step_{step:06d}/{name}"] = content
        if self._config.sample_every and step % self._config.sample_every == 0:
            self._look_at(losses.tolist())  # the trackers show the pictures beside the last loss
            self.show(step)

    def show(self, step: int) -> None:
        """Add the sample pictures after `step` steps to the course."""
        self.course.append((step, self.pictures(self._config.concepts)))

    def _look_at(self, losses: list[float]) -> None:
        diverged = next((i for i, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
        if diverged:
            rates = {name: f"{peak:g}" for name, peak in self._plan.schedule.peak_lr.items()}
            raise ValueError(
                f"the training diverged: the loss of step {diverged} is not a number. Lower the "
                f"learning rates (now {', '.join(f'{n} {r}' for n, r in rates.items())}), or "
                "raise lr_warmup_steps"
            )
        if self._wandb:
            courses = self._learning_rates.items()
            self._wandb.log_steps(losses, {name: rates[: len(losses)] for name, rates in courses})

    def pictures(self, concepts: Sequence[Concept]) -> list[Image.Image]:
        """Make the sample pictures with the models as they are."""
        device, prompts = self._accelerator.device, self._plan.prompts
        with sampling(self._models, device), self._accelerator.autocast():
            pictures = preview_pictures(self._models, prompts, concepts, self._config.resolution)
        if self._wandb:
            self._wandb.log_pictures({p: [i] for p, i in zip(prompts, pictures, strict=True)})
        return pictures

    def previews(
        self, before: Sequence[Image.Image], after: Sequence[Image.Image]
    ) -> tuple[Preview, ...]:
        """Return what each prompt showed before, in the course of, and after the training."""
        return tuple(
            Preview(
                prompt=prompt,
                seed=i,
                before=before[i],
                after=after[i],
                course=tuple((step, pictures[i]) for step, pictures in self.course),
            )
            for i, prompt in enumerate(self._plan.prompts)
        )

    def members(self, losses: Sequence[float]) -> dict[str, bytes]:
        """Return the files for the archive: the curves for TensorBoard, and the checkpoints."""
        events = tensorboard_events(losses, self._learning_rates)
        return {EVENTS_NAME: events, **self._checkpoints}

    def close(self) -> None:
        """Stop the progress."""
        self._progress.close()
