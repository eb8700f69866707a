"""What a run leaves behind: the trained weights, and the record of how they were made."""

import logging
from collections.abc import Mapping
from importlib.metadata import version

from sdxl.lora import load_lora, lora_state_dict, remove_lora, text_encoder_lora_state
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import InstalledEmbeddings
from sdxl.weights.networks import lora_by_network
from sdxl.weights.resize import BYTES_PER_MB, resize_weights
from sdxl.weights.trained import FORMAT_VERSION, TrainedWeights
from trainer.config import TrainConfig
from trainer.continued import NOTHING

logger = logging.getLogger(__name__)

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")


def collect_weights(
    models: SDXLModels,
    embeddings: InstalledEmbeddings,
    config: TrainConfig,
    record: dict[str, object],
    init: TrainedWeights = NOTHING,
) -> TrainedWeights:
    """Return a copy of everything that was trained, as it is now, on the CPU.

    The LoRA of `init` that did not train is in it, as it was.
    """
    unet = models.unet.state_dict() if config.method == "full" else {}
    text_lora = [init.text_encoder_lora, init.text_encoder_2_lora]
    if config.text_encoder_lr:
        encoders = (models.text_encoder, models.text_encoder_2)
        text_lora = [text_encoder_lora_state(encoder) for encoder in encoders]
    return TrainedWeights(
        concepts=config.concepts,
        embeddings=embeddings.state(),
        lora=lora_state_dict(models.unet) if config.trains_lora else init.lora,
        text_encoder_lora=text_lora[0],
        text_encoder_2_lora=text_lora[1],
        unet={key: value.cpu().half().contiguous() for key, value in unet.items()},
        record=record,
    )


def shrink_lora(weights: TrainedWeights, lora_max_mb: float) -> TrainedWeights:
    """Return weights with a LoRA whose file for web UIs is not larger than `lora_max_mb`.

    Raises:
        ValueError: There is no LoRA so small.
    """
    try:
        return resize_weights(weights, max_bytes=int(lora_max_mb * BYTES_PER_MB))
    except ValueError as error:
        raise ValueError(f"lora_max_mb={lora_max_mb:g} is too small: {error}") from error


def resize_trained(
    models: SDXLModels, weights: TrainedWeights, lora_max_mb: float
) -> TrainedWeights:
    """Make the LoRA in `models` and in `weights` as small as asked for; 0 leaves both.

    Args:
        models: With the LoRA of `weights` in them.
        weights: As they were trained.
        lora_max_mb: Largest size of the web UIs' file.
    """
    if not lora_max_mb:
        return weights
    resized = shrink_lora(weights, lora_max_mb)
    for network, state in lora_by_network(models, weights):
        if state:
            remove_lora(network)
    for network, state in lora_by_network(models, resized):
        if state:
            load_lora(network, state)
    logger.info(
        "lora_max_mb=%g: %d of %d pairs of rows and columns are kept.",
        lora_max_mb,
        _total_rank(resized),
        _total_rank(weights),
    )
    return resized


def _total_rank(weights: TrainedWeights) -> int:
    states = (weights.lora, weights.text_encoder_lora, weights.text_encoder_2_lora)
    return sum(v.shape[0] for state in states for k, v in state.items() if ".lora_A." in k)


def training_record(
    base_model: str, models: SDXLModels, seed: int, settings: Mapping[str, object]
) -> dict[str, object]:
    """Return the content of `training.json`; no times, so that equal runs give equal bytes.

    The losses are added when there are any.
    """
    return {
        "format_version": FORMAT_VERSION,
        "base_model": base_model,
        "prediction_type": models.scheduler_config["prediction_type"],
        "seed": seed,
        "settings": dict(settings),
        "packages": {name: version(name) for name in _PACKAGES},
    }
