"""Class pictures for prior preservation (DreamBooth, arXiv:2208.12242, section 3.2).

The base model's own pictures of the class are trained beside the subject's, so that the word for
the class keeps its old look.
"""

import logging
from dataclasses import replace
from pathlib import Path

from diffusers import EulerDiscreteScheduler
from PIL import Image

from preprocess.manifest import Manifest, TrainingExample
from sdxl.models import SDXLModels
from sdxl.pipeline import SamplerSettings, sample
from trainer.config import MAX_SEED, TrainConfig

logger = logging.getLogger(__name__)

NUM_INFERENCE_STEPS = 25
GUIDANCE_SCALE = 5.0
BATCH_SIZE = 4
NUM_SHOWN = 8


def make_class_pictures(
    models: SDXLModels, class_prompt: str, num: int, size_px: int, seed: int, directory: Path
) -> Manifest:
    """Let the base model make pictures of the class, and write them to `directory`.

    Args:
        models: The base, untouched, on its device.
        class_prompt: Such as `a photo of a robot`; also each picture's caption.
        num: How many.
        size_px: Side of the pictures.
        seed: Of the first; the others' follow.
        directory: An existing folder.
    """
    settings = SamplerSettings(
        height_px=size_px,
        width_px=size_px,
        num_inference_steps=NUM_INFERENCE_STEPS,
        guidance_scale=GUIDANCE_SCALE,
    )
    scheduler = EulerDiscreteScheduler.from_config(models.scheduler_config)
    logger.info("Making %d class pictures of %r.", num, class_prompt)
    examples = []
    for start in range(0, num, BATCH_SIZE):
        seeds = [(seed + i) % (MAX_SEED + 1) for i in range(start, min(start + BATCH_SIZE, num))]
        for picture in sample(models, scheduler, [class_prompt] * len(seeds), seeds, settings):
            name = f"class-{len(examples):04d}"
            picture.save(directory / f"{name}.png")
            examples.append(_example(name, class_prompt, size_px))
        logger.info("Class picture %d of %d.", len(examples), num)
    return Manifest(directory=directory, examples=tuple(examples))


def find_class_pictures(
    own: Manifest | None, models: SDXLModels, config: TrainConfig, folder: Path
) -> Manifest:
    """Return the user's class pictures, else pictures that the base model makes into `folder`."""
    assert config.class_prompt is not None
    if own is not None:
        return captioned_as_class(own, config.class_prompt)
    return make_class_pictures(
        models,
        config.class_prompt,
        config.num_class_images,
        config.resolution,
        config.seed,
        folder,
    )


def open_some(manifest: Manifest) -> tuple[Image.Image, ...]:
    """Return the first pictures, to be looked at."""
    pictures = []
    for example in manifest.examples[:NUM_SHOWN]:
        with Image.open(manifest.directory / example.image_path) as picture:
            pictures.append(picture.copy())
    return tuple(pictures)


def captioned_as_class(manifest: Manifest, class_prompt: str) -> Manifest:
    """Return the user's class pictures, each with the caption `class_prompt`."""
    examples = tuple(replace(example, caption=class_prompt) for example in manifest.examples)
    return replace(manifest, examples=examples)


def _example(name: str, caption: str, size_px: int) -> TrainingExample:
    return TrainingExample(
        example_id=name,
        image_path=f"{name}.png",
        mask_path=None,
        caption=caption,
        source_name=f"{name}.png",
        original_size=(size_px, size_px),
        crop_top_left=(0, 0),
        target_size=(size_px, size_px),
        notes=(),
    )
