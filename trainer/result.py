"""What a run leaves behind: the trained weights, and the record of how they were made."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from sdxl.lora import lora_state_dict, text_encoder_lora_state
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import InstalledEmbeddings
from sdxl.weights.trained import FORMAT_VERSION, TrainedWeights
from trainer.config import TrainConfig

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")


def collect_weights(
    models: SDXLModels,
    embeddings: InstalledEmbeddings,
    config: TrainConfig,
    record: dict[str, object],
) -> TrainedWeights:
    """Return a copy of everything that was trained, as it is now, on the CPU."""
    unet = models.unet.state_dict() if config.method == "full" else {}
    text_lora = [
        text_encoder_lora_state(encoder) if config.text_encoder_lr else {}
        for encoder in (models.text_encoder, models.text_encoder_2)
    ]
    return TrainedWeights(
        concepts=config.concepts,
        embeddings=embeddings.state(),
        lora=lora_state_dict(models.unet) if config.trains_lora else {},
        text_encoder_lora=text_lora[0],
        text_encoder_2_lora=text_lora[1],
        unet={key: value.cpu().half().contiguous() for key, value in unet.items()},
        record=record,
    )


def training_record(
    base_model: str, seed: int, settings: Mapping[str, object], losses: Sequence[float]
) -> dict[str, object]:
    """Return the content of `training.json`; no times, so that equal runs give equal bytes."""
    return {
        "format_version": FORMAT_VERSION,
        "base_model": base_model,
        "seed": seed,
        "settings": dict(settings),
        "packages": {name: version(name) for name in _PACKAGES},
        "losses": [round(loss, 6) for loss in losses],
    }
