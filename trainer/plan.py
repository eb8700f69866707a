"""What a run is going to do, worked out once the base model is known, and said to the user."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from accelerate import Accelerator

from preprocess.manifest import Manifest
from sdxl.models import SDXLModels
from trainer.config import TrainConfig
from trainer.hardware import choose_gradient_checkpointing
from trainer.preview import preview_prompts
from trainer.schedule import PivotalSchedule

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """What follows from settings, pictures and base model.

    Attributes:
        schedule: Steps, pivot and learning rates.
        prompts: Of the report's pictures.
        gradient_checkpointing: Whether to trade time for memory.
        notices: What the user should be warned of, a sentence each.
    """

    schedule: PivotalSchedule
    prompts: tuple[str, ...]
    gradient_checkpointing: bool
    notices: tuple[str, ...]


def plan_training(
    manifest: Manifest,
    models: SDXLModels,
    config: TrainConfig,
    accelerator: Accelerator,
    notices: Sequence[str] = (),
) -> TrainingPlan:
    """Return the plan, and log it.

    Args:
        manifest: The prepared pictures.
        models: Of the base.
        config: The settings.
        accelerator: Device and precision.
        notices: What is to be said beside what the plan itself finds.

    Raises:
        ValueError: `sample_prompts` holds no prompt.
    """
    schedule = PivotalSchedule.from_config(config, config.total_steps(len(manifest.examples)))
    plan = TrainingPlan(
        schedule=schedule,
        prompts=preview_prompts(
            config.sample_prompts, config.concepts[0].trigger, manifest.examples[0].caption
        ),
        gradient_checkpointing=choose_gradient_checkpointing(
            config.gradient_checkpointing, models, config, accelerator.device
        ),
        notices=(*notices, *_notices(models, config)),
    )
    for notice in plan.notices:
        logger.warning("%s", notice)
    logger.info(
        "%d images, %d steps of %d (%s), %s until step %d, seed %d, on %s (%s).",
        len(manifest.examples),
        schedule.num_steps,
        config.train_batch_size * config.gradient_accumulation_steps,
        config.method,
        ", ".join(f"{c.trigger} as {len(c.placeholder_tokens)} vectors" for c in config.concepts),
        schedule.pivot_step,
        config.seed,
        accelerator.device,
        accelerator.mixed_precision if accelerator.mixed_precision != "no" else "float32",
    )
    return plan


def _notices(models: SDXLModels, config: TrainConfig) -> list[str]:
    native = models.native_size_px
    if native / 2 <= config.resolution <= native * 2:
        return []
    return [
        f"resolution {config.resolution} is far from the {native} px that this base model was "
        f"trained at: pictures will suffer; resolution={native} suits it."
    ]
