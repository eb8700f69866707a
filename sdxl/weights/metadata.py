"""What web UIs read off a file's header: kohya's `ss_*`, ModelSpec's `modelspec.*`, hashes.

No times: equal weights give equal bytes. ModelSpec 1.0.1 is github.com/Stability-AI/ModelSpec.
"""

import hashlib
import json
from collections.abc import Mapping

from torch import Tensor

from sdxl.lora import MAGNITUDE
from sdxl.weights.stable_bytes import serialize, tensor_data
from sdxl.weights.trained import TrainedWeights

RECORD_KEY = "training.json"
"""Our own key: the record without its losses."""

_FROM_SETTINGS = {
    "ss_unet_lr": "lora_lr",
    "ss_learning_rate": "lora_lr",
    "ss_text_encoder_lr": "text_encoder_lr",
    "ss_optimizer": "optimizer",
    "ss_lr_scheduler": "lr_scheduler",
    "ss_lr_warmup_steps": "lr_warmup_steps",
    "ss_max_train_steps": "max_train_steps",
    "ss_num_epochs": "num_train_epochs",
    "ss_batch_size_per_device": "train_batch_size",
    "ss_gradient_accumulation_steps": "gradient_accumulation_steps",
    "ss_network_dropout": "lora_dropout",
    "ss_caption_dropout_rate": "caption_dropout",
    "ss_max_grad_norm": "max_grad_norm",
    "ss_min_snr_gamma": "snr_gamma",
    "ss_noise_offset": "noise_offset",
    "ss_mixed_precision": "mixed_precision",
}
_LEGACY_HASH_PART = slice(0x100000, 0x110000)
_PREDICTION_TYPES = {"epsilon": "epsilon", "v_prediction": "v"}


def lora_metadata(weights: TrainedWeights, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Return the header of a file with a LoRA.

    Args:
        weights: What is written.
        tensors: As they are written; the hashes are theirs.
    """
    metadata = {
        **_ss_metadata(weights),
        **_model_spec(weights, "lora", _title(weights)),
        RECORD_KEY: _record_json(weights),
    }
    return {**metadata, **_hashes(tensors, metadata), "format": "pt"}


def embedding_metadata(
    weights: TrainedWeights, trigger: str, tensors: dict[str, Tensor]
) -> dict[str, str]:
    """Return the header of a file with one concept's embedding."""
    metadata = {
        **_model_spec(weights, "textual-inversion", trigger),
        "modelspec.trigger_phrase": trigger,
        RECORD_KEY: _record_json(weights),
    }
    return {**metadata, **_hashes(tensors, metadata), "format": "pt"}


def _title(weights: TrainedWeights) -> str:
    if weights.concepts:
        return weights.concepts[0].trigger
    return str(weights.record.get("source", "SDXL LoRA")).removesuffix(".safetensors")


def _settings(weights: TrainedWeights) -> Mapping[str, object]:
    settings = weights.record.get("settings")
    return settings if isinstance(settings, dict) else {}


def _record_json(weights: TrainedWeights) -> str:
    record = {name: value for name, value in weights.record.items() if name != "losses"}
    return json.dumps(record, sort_keys=True)


def _ss_metadata(weights: TrainedWeights) -> dict[str, str]:
    settings, record = _settings(weights), weights.record
    metadata = {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "ss_network_module": "networks.lora",
        "ss_output_name": _title(weights),
        **_ranks(weights),
    }
    for name, setting in _FROM_SETTINGS.items():
        if settings.get(setting) is not None:
            metadata[name] = str(settings[setting])
    if isinstance(losses := record.get("losses"), list):
        metadata["ss_steps"] = str(len(losses))
    if "seed" in record:
        metadata["ss_seed"] = str(record["seed"])
    if weights.base_model:
        metadata["ss_sd_model_name"] = weights.base_model
    if side := settings.get("resolution"):
        metadata["ss_resolution"] = f"({side}, {side})"
    if weights.concepts:
        triggers = ", ".join(concept.trigger for concept in weights.concepts)
        metadata["ss_training_comment"] = f"trained together with the embedding of {triggers}"
    return metadata


def _ranks(weights: TrainedWeights) -> dict[str, str]:
    """Return rank and alpha; kohya writes Dynamic where layers differ."""
    states = (weights.lora, weights.text_encoder_lora, weights.text_encoder_2_lora)
    joined = [(key, value) for state in states for key, value in state.items()]
    ranks = {len(value) for key, value in joined if key.endswith(".lora_A.weight")}
    rank = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
    arguments = {}
    if any(value.ndim > 2 and ".lora_A." in key for key, value in joined):
        arguments |= {"conv_dim": rank, "conv_alpha": rank}
    if any(key.endswith(MAGNITUDE) for key, _ in joined):
        arguments |= {"dora_wd": "True", "wd_on_output": "True"}
    return {
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_network_args": json.dumps(arguments, sort_keys=True),
    }


def _model_spec(weights: TrainedWeights, kind: str, title: str) -> dict[str, str]:
    side = _settings(weights).get("resolution") or 1024
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": f"stable-diffusion-xl-v1-base/{kind}",
        "implementation": "https://github.com/Stability-AI/generative-models",
        "title": title,
        "resolution": f"{side}x{side}",
        "dtype": "float16",
    }
    if weights.concepts:
        spec["trigger_phrase"] = ", ".join(concept.trigger for concept in weights.concepts)
    prediction_type = _PREDICTION_TYPES.get(str(weights.record.get("prediction_type")))
    if prediction_type:
        spec["prediction_type"] = prediction_type
    return {f"modelspec.{name}": value for name, value in spec.items()}


def _hashes(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes by which AUTOMATIC1111 and Civitai know a file.

    kohya's and ModelSpec's are of all that follows the header; kohya's legacy one is of 64 KiB of a
    file whose header has the `ss_*` alone.
    """
    file = serialize(tensors, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    data_hash = hashlib.sha256(tensor_data(file)).hexdigest()
    return {
        "sshs_model_hash": data_hash,
        "sshs_legacy_hash": hashlib.sha256(file[_LEGACY_HASH_PART]).hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{data_hash}",
    }
