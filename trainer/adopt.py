"""`skip_training`: the archive of a training out of weights that were trained elsewhere."""

from dataclasses import replace
from pathlib import Path

from sdxl.concept import DEFAULT_TRIGGER
from sdxl.downloads import SDXL
from sdxl.weights.archive import save_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import export_members
from trainer.config import TrainConfig
from trainer.result import shrink_lora


def adopt_weights(
    weights: TrainedWeights, config: TrainConfig, base_model: str, archive: Path
) -> None:
    """Write an archive of `weights`, as a training writes its own.

    Args:
        weights: Of any trainer.
        config: Of it act `token_string` (another one than the default renames the trigger),
            `lora_max_mb` and `export`.
        base_model: Is recorded, if it is another one than the default.
        archive: The file to write.

    Raises:
        ValueError: The weights have not what `config` asks to change.
    """
    weights = _with_base(_renamed(weights, config.token_string), base_model)
    if config.lora_max_mb:
        weights = shrink_lora(weights, config.lora_max_mb)
    members: dict[str, bytes] = {}
    for export in config.exports:
        files = export_members(weights, (export,))
        if not files:
            kind = "a whole U-Net" if weights.unet else "LoRA" if weights.has_lora else "embeddings"
            raise ValueError(f"export={export} has no place for init_weights, which are {kind}")
        members |= files
    save_weights(weights, archive, members)


def _renamed(weights: TrainedWeights, token_string: str) -> TrainedWeights:
    triggers = [concept.trigger for concept in weights.concepts]
    if token_string == DEFAULT_TRIGGER or token_string in triggers:
        return weights
    if not triggers:
        raise ValueError(
            f"token_string={token_string} would name an embedding, and init_weights have none: "
            "leave it out, and write the words in prompts that the LoRA was trained with"
        )
    if len(triggers) > 1:
        raise ValueError(
            f"token_string={token_string} could name any of {', '.join(triggers)}, the words of "
            "init_weights: leave it out"
        )
    return replace(weights, concepts=(replace(weights.concepts[0], trigger=token_string),))


def _with_base(weights: TrainedWeights, base_model: str) -> TrainedWeights:
    if base_model == SDXL.name or base_model == weights.base_model:
        return weights
    if not weights.record:  # a record would change how prediction reads them
        raise ValueError(
            f"base_model={base_model} cannot be noted in init_weights, an archive of cog-sdxl's: "
            "leave it out, and set the environment variable BASE_MODEL where they are served"
        )
    return replace(weights, record={**weights.record, "base_model": base_model})
