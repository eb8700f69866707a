"""Learning rates and phases as pure functions of the step."""

import math
from dataclasses import dataclass
from typing import Literal

from trainer.config import LrScheduler, TrainConfig

Group = Literal["placeholder_embeddings", "text_encoder_lora", "unet_lora", "unet"]
TEXT_GROUPS: tuple[Group, ...] = ("placeholder_embeddings", "text_encoder_lora")
"""The text side: it trains until the pivot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PivotalSchedule:
    """First inversion and tuning together, then tuning alone (arXiv:2106.05744).

    Attributes:
        num_steps: Optimizer steps of the run.
        pivot_step: The first step at which the text side no longer trains.
        warmup_steps: Steps of linear rise.
        lr_scheduler: Course after the warm-up.
        num_cycles: Of `cosine_with_restarts`.
        peak_lr: Of each parameter group.
    """

    num_steps: int
    pivot_step: int
    warmup_steps: int
    lr_scheduler: LrScheduler
    num_cycles: int
    peak_lr: dict[Group, float]

    @classmethod
    def from_config(cls, config: TrainConfig, num_steps: int) -> "PivotalSchedule":
        """Return the schedule of a run of `num_steps`.

        The text side gets one step at least, unless `ti_train_fraction` is 0.
        """
        pivot_step = round(config.ti_train_fraction * num_steps)
        if config.ti_train_fraction > 0:
            pivot_step = max(1, pivot_step)
        peak_lr: dict[Group, float] = {"placeholder_embeddings": config.ti_lr}
        if config.text_encoder_lr:
            peak_lr["text_encoder_lora"] = config.text_encoder_lr
        if config.trains_lora:
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
            num_cycles=config.lr_num_cycles,
            peak_lr=peak_lr,
        )

    def trains_text(self, step: int) -> bool:
        """Tell whether the text side is trained at `step` (from 0)."""
        return step < self.pivot_step

    def lr(self, group: Group, step: int) -> float:
        """Return the learning rate of `group` at `step` (from 0 to num_steps - 1)."""
        if group in TEXT_GROUPS and not self.trains_text(step):
            return 0.0
        rise = min(1.0, (step + 1) / (self.warmup_steps + 1))
        return self.peak_lr[group] * rise * self._course(group, step)

    def courses(self) -> dict[str, list[float]]:
        """Return the learning rate of each group at each step."""
        return {
            group: [self.lr(group, step) for step in range(self.num_steps)]
            for group in self.peak_lr
        }

    def _course(self, group: Group, step: int) -> float:
        if group in TEXT_GROUPS and self.pivot_step < self.num_steps:
            # settled when it is frozen: no cliff at the pivot
            return _half_cosine(step / self.pivot_step)
        after_warmup = max(0, step - self.warmup_steps)
        progress = after_warmup / max(1, self.num_steps - self.warmup_steps)
        match self.lr_scheduler:
            case "linear":
                return 1.0 - progress
            case "cosine":
                return _half_cosine(progress)
            case "cosine_with_restarts":
                return _half_cosine(progress * self.num_cycles % 1.0)
            case "constant" | "constant_with_warmup":
                return 1.0


def _half_cosine(progress: float) -> float:
    """Fall from 1 at 0 to 0 at 1."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))
