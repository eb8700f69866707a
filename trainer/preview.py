"""Sample pictures for the report: the same prompts and seeds before, during and after training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image

from sdxl.concept import Concept, expand
from sdxl.models import SDXLModels
from sdxl.pipeline import SamplerSettings, sample

NUM_INFERENCE_STEPS = 25
GUIDANCE_SCALE = 4.0
BATCH_SIZE = 4
SEPARATOR = "|"
_PLACES = ("on the beach", "in the snow", "at night")


def preview_prompts(sample_prompts: str | None, trigger: str, caption: str) -> tuple[str, ...]:
    """Return the prompts of the report's pictures; the picture of prompt i has the seed i.

    Args:
        sample_prompts: The user's, separated by `|`; None takes `caption` and the trigger in
            three places.
        trigger: The main concept's.
        caption: One that is trained.

    Raises:
        ValueError: `sample_prompts` holds none.
    """
    if sample_prompts is None:
        return (caption, *(f"a photo of {trigger} {place}" for place in _PLACES))
    prompts = tuple(text.strip() for text in sample_prompts.split(SEPARATOR) if text.strip())
    if not prompts:
        raise ValueError(
            "sample_prompts must be prompts separated by |, such as "
            f"'{trigger} on the beach | {trigger} at night', got {sample_prompts!r}"
        )
    return prompts


def preview_pictures(
    models: SDXLModels, prompts: Sequence[str], concepts: Sequence[Concept], size_px: int
) -> list[Image.Image]:
    """Make one picture for each prompt.

    Args:
        models: As they are now; see `sampling`.
        prompts: With the triggers in them.
        concepts: Those that the model knows; none before training, when a trigger is a word
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
    pictures = []
    for start in range(0, len(prompts), BATCH_SIZE):
        part = expanded[start : start + BATCH_SIZE]
        seeds = range(start, start + len(part))
        pictures += sample(models, scheduler, part, seeds, settings)
    return pictures


@contextmanager
def sampling(models: SDXLModels, device: torch.device) -> Iterator[None]:
    """Bring every network to `device` and out of training mode; then put all back as it was."""
    networks = (models.text_encoder, models.text_encoder_2, models.vae, models.unet)
    before = [(network.device, network.training) for network in networks]
    for network in networks:
        network.to(device).eval()
    try:
        yield
    finally:
        for network, (own_device, was_training) in zip(networks, before, strict=True):
            network.to(own_device).train(was_training)
