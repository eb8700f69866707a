"""What is in a weights file, for people and for programs."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from sdxl.weights.cog_keys import join_networks
from sdxl.weights.files import is_archive
from sdxl.weights.lora_pairs import LoraPair, split_pairs
from sdxl.weights.reading import DIFFUSERS_NAME, read_weights
from sdxl.weights.resize import BYTES_PER_MB
from sdxl.weights.trained import TrainedWeights

_MILLION = 1_000_000

# what a key is a sign of, the surest signs first
_FORMATS: tuple[tuple[str, str], ...] = (
    (r"bundle_emb\..*", "LoRA for web UIs with its embedding in it (bundle)"),
    (r"lora_(unet|te1|te2)_.*", "LoRA for web UIs (webui, kohya's keys)"),
    (r"lycoris_.*", "LyCORIS for web UIs"),
    (r".*\.processor\..*", "LoRA with cog-sdxl's keys"),
    (r".*lora.*", "LoRA for diffusers (diffusers)"),
    (r"clip_[lg]", "embedding for web UIs"),
    (r".*", "U-Net"),
)
_TARGETS: tuple[tuple[str, str], ...] = (
    (r"text_encoder\..*", "first text encoder"),
    (r"text_encoder_2\..*", "second text encoder"),
    (r".*\.attn1\..*", "self-attention"),
    (r".*\.attn2\..*", "cross-attention"),
    (r".*\.ff\..*", "feed-forward"),
    (r".*conv.*|.*\.op", "convolutions"),
    (r".*proj_(in|out)", "projections around the attention"),
    (r".*", "others"),
)
_SETTINGS = (
    *("lora_target", "lora_rank", "lora_alpha", "resolution", "max_train_steps"),
    *("train_batch_size", "lora_lr", "ti_lr", "text_encoder_lr", "unet_learning_rate"),
    *("optimizer", "lr_scheduler", "caption_prefix", "lora_max_mb", "seed"),
)
_METADATA = (
    *("ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_resolution", "ss_steps"),
    *("ss_unet_lr", "ss_text_encoder_lr", "ss_optimizer", "modelspec.trigger_phrase"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsInfo:
    """What can be said of a file without a base model.

    Attributes:
        name: Of the file.
        size_bytes: Of the file, or of all files of the folder.
        format: What kind of file it is.
        method: How the weights were trained.
        base_model: On which they were trained, if the file says so.
        triggers: The vectors of each trigger.
        ranks: How many layers have each rank, the largest rank first.
        targets: How many layers of each kind were trained.
        num_parameters: Of all matrices, or of the U-Net; without embeddings.
        settings: Those of the training that tell most, as the file has them.
    """

    name: str
    size_bytes: int
    format: str
    method: str
    base_model: str | None
    triggers: dict[str, int]
    ranks: dict[int, int]
    targets: dict[str, int]
    num_parameters: int
    settings: dict[str, object]

    def text(self) -> str:
        """Return it as lines for people."""
        lines = {
            "file": f"{self.name}, {self.size_bytes / BYTES_PER_MB:.2f} MB",
            "format": self.format,
            "base model": self.base_model or "not recorded",
            "method": self.method,
            "trigger": _listed(
                f"{trigger} ({number} vector{'s' * (number != 1)})"
                for trigger, number in self.triggers.items()
            ),
            "rank": _listed(
                f"{rank} ({number} layer{'s' * (number != 1)})"
                for rank, number in self.ranks.items()
            ),
            "layers": _listed(f"{number} {kind}" for kind, number in self.targets.items()),
            "parameters": f"{self.num_parameters / _MILLION:.2f} million",
            "scale": "1 is as trained: alpha is accounted for" if self.ranks else "",
            **{name: str(value) for name, value in self.settings.items()},
        }
        width = max(map(len, lines)) + 2
        return "\n".join(f"{name:{width}}{value}" for name, value in lines.items() if value)


def inspect_weights(path: Path) -> WeightsInfo:
    """Read a file and return what is in it.

    Args:
        path: As for `sdxl.weights.reading.read_weights`.

    Raises:
        ValueError: It cannot be read.
    """
    weights = read_weights(path)
    keys = _safetensors_keys(path)
    pairs = split_pairs(
        join_networks(
            weights.lora,
            text_encoder=weights.text_encoder_lora,
            text_encoder_2=weights.text_encoder_2_lora,
        )
    )
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    ranks = Counter(pair.rank for pair in pairs.values())
    return WeightsInfo(
        name=path.name,
        size_bytes=sum(file.stat().st_size for file in files),
        format=_first_match(_FORMATS, keys) if keys else _archive_format(path, weights),
        method=_method(weights, pairs, keys),
        base_model=weights.base_model or _metadata(weights).get("ss_sd_model_name"),
        triggers={c.trigger: len(c.placeholder_tokens) for c in weights.concepts},
        ranks=dict(sorted(ranks.items(), reverse=True)),
        targets=_targets(pairs),
        num_parameters=_num_parameters(weights, pairs),
        settings=_known_settings(weights),
    )


def _safetensors_keys(path: Path) -> list[str]:
    """Return the keys of a single file, none of an archive."""
    if path.is_dir() and (path / DIFFUSERS_NAME).is_file():
        path = path / DIFFUSERS_NAME
    if path.is_dir() or is_archive(path):
        return []
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _first_match(signs: Iterable[tuple[str, str]], keys: Iterable[str]) -> str:
    return next(what for sign, what in signs if any(re.fullmatch(sign, key) for key in keys))


def _archive_format(path: Path, weights: TrainedWeights) -> str:
    kind = "folder" if path.is_dir() else "archive"
    return f"{kind} of a training (cog)" if weights.record else f"{kind} of cog-sdxl's (cog)"


def _method(weights: TrainedWeights, pairs: Mapping[str, LoraPair], keys: Iterable[str]) -> str:
    if weights.unet:
        return "whole U-Net"
    if not pairs:
        return "embeddings alone"
    for sign, method in (("hada_", "LoHa"), ("lokr_", "LoKr")):
        if any(sign in key for key in keys):
            return f"{method}, read as an equal LoRA"
    return "DoRA" if any(pair.magnitude is not None for pair in pairs.values()) else "LoRA"


def _targets(pairs: Iterable[str]) -> dict[str, int]:
    counts = Counter(_first_match(_TARGETS, [path]) for path in pairs)
    return {kind: counts[kind] for _, kind in _TARGETS if counts[kind]}


def _num_parameters(weights: TrainedWeights, pairs: Mapping[str, LoraPair]) -> int:
    of_unet = sum(value.numel() for value in weights.unet.values())
    matrices = (t for p in pairs.values() for t in (p.up, p.down, p.magnitude) if t is not None)
    return of_unet + sum(matrix.numel() for matrix in matrices)


def _known_settings(weights: TrainedWeights) -> dict[str, object]:
    settings, metadata = weights.record.get("settings"), _metadata(weights)
    own = settings if isinstance(settings, dict) else {}
    known = {name: own[name] for name in _SETTINGS if own.get(name) is not None}
    known |= {name: metadata[name] for name in _METADATA if name in metadata}
    if isinstance(merged := weights.record.get("merged"), list):
        known["merged from"] = ", ".join(f"{each['file']} at {each['weight']:g}" for each in merged)
    return known


def _metadata(weights: TrainedWeights) -> Mapping[str, str]:
    """Return what another trainer wrote into its file's header."""
    metadata = weights.record.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)
