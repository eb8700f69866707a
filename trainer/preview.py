"""Sample pictures for the report: the same prompts and seeds before and after training."""

from collections.abc import Sequence

from diffusers import EulerDiscreteScheduler
from PIL import Image

from sdxl.concept import Concept, expand
from sdxl.models import SDXLModels
from sdxl.pipeline import SamplerSettings, sample

SEEDS = (0, 1, 2, 3)
NUM_INFERENCE_STEPS = 25
GUIDANCE_SCALE = 4.0
_PLACES = ("on the beach", "in the snow", "at night")


def preview_prompts(trigger: str, first_caption: str) -> tuple[str, ...]:
    """Return four prompts: a caption as it was trained, and the trigger in three places."""
    return (first_caption, *(f"a photo of {trigger} {place}" for place in _PLACES))


def preview_pictures(
    models: SDXLModels, prompts: Sequence[str], concepts: Sequence[Concept], size_px: int
) -> list[Image.Image]:
    """Make one picture for each prompt, at the seeds `SEEDS`.

    Args:
        models: As they are now, on their device.
        prompts: At most four, with the trigger in them.
        concepts: Those that the model knows; none before training, when the trigger is a word
            like any other.
        size_px: Side of the pictures.
    """
    settings = SamplerSettings(
        height_px=size_px,
        width_px=size_px,
        num_inference_steps=NUM_INFERENCE_STEPS,
        guidance_scale=GUIDANCE_SCALE,
    )
    scheduler = EulerDiscreteScheduler.from_config(models.scheduler_config)
    expanded = [expand(prompt, concepts) for prompt in prompts]
    return sample(models, scheduler, expanded, SEEDS[: len(prompts)], settings)
