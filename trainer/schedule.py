"""Learning rates and phases as pure functions of the step."""

import math
from dataclasses import dataclass
from typing import Literal

from trainer.config import LrScheduler, TrainConfig

Group = Literal["placeholder_embeddings", "unet_lora", "unet"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PivotalSchedule:
    """First inversion and tuning together, then tuning alone (arXiv:2106.05744).

    Attributes:
        num_steps: Optimizer steps of the run.
        pivot_step: The first step at which the embeddings no longer train.
        warmup_steps: Steps of linear rise.
        lr_scheduler: Course after the warm-up.
        peak_lr: Of each parameter group.
    """

    num_steps: int
    pivot_step: int
    warmup_steps: int
    lr_scheduler: LrScheduler
    peak_lr: dict[Group, float]

    @classmethod
    def from_config(cls, config: TrainConfig, num_steps: int) -> "PivotalSchedule":
        """Return the schedule of a run of `num_steps`; the embeddings get one step at least."""
        pivot_step = max(1, round(config.ti_train_fraction * num_steps))
        peak_lr: dict[Group, float] = {"placeholder_embeddings": config.ti_lr}
        if config.method == "lora":
            peak_lr["unet_lora"] = config.lora_lr
        elif config.method == "full":
            peak_lr["unet"] = config.unet_learning_rate
        else:
            pivot_step = num_steps  # nothing else trains
        return cls(
            num_steps=num_steps,
            pivot_step=pivot_step,
            warmup_steps=config.lr_warmup_steps,
            lr_scheduler=config.lr_scheduler,
            peak_lr=peak_lr,
        )

    def trains_embeddings(self, step: int) -> bool:
        """Tell whether the new embeddings are trained at `step` (from 0)."""
        return step < self.pivot_step

    def lr(self, group: Group, step: int) -> float:
        """Return the learning rate of `group` at `step` (from 0 to num_steps - 1)."""
        if group == "placeholder_embeddings" and not self.trains_embeddings(step):
            return 0.0
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.peak_lr[group] * warmup * self._course(step)

    def _course(self, step: int) -> float:
        after_warmup = max(0, step - self.warmup_steps)
        progress = after_warmup / max(1, self.num_steps - self.warmup_steps)
        if self.lr_scheduler == "linear":
            return 1.0 - progress
        if self.lr_scheduler == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        return 1.0
