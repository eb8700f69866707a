"""diffusers' and peft's key names for LoRA, there and back.

Written: `unet.<path>.lora_A.weight`, `.lora_B.weight`, `.lora_magnitude_vector`, likewise behind
`text_encoder.` and `text_encoder_2.`, and the metadata by which diffusers builds peft's configs.
Read as well, with or without the network's name in front:

    <path>.to_q.lora.down.weight              diffusers before peft
    <path>.attn1.processor.to_q_lora.down.weight    its attention processors, cog-sdxl
    <path>.q_proj.lora_linear_layer.down.weight     its text encoders
    diffusion_model.<sgm path>.lora_down.weight     ComfyUI's own names
"""

import json
import re
from collections import Counter
from collections.abc import Mapping

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from torch import Tensor

from sdxl.lora import MAGNITUDE, TEXT_MODEL
from sdxl.weights.layer_names import from_sgm
from sdxl.weights.layers import Layers, Network, Place
from sdxl.weights.trained import TrainedWeights

_NETWORKS: dict[str, Network] = {
    "unet": "unet",
    "diffusion_model": "unet",
    "text_encoder_2": "text_encoder_2",
    "text_encoder": "text_encoder",
}
_NETWORK = re.compile(rf"({'|'.join(_NETWORKS)})\.(.+)")
_PROCESSOR = re.compile(r"(?:\.processor)?\.(to_q|to_k|to_v|to_out)_lora\.")
_OLD_TEXT = re.compile(r"(.*\.self_attn)\.to_(q|k|v|out)")
_PARTS = {
    "lora_A": "lora_down",
    "lora_down": "lora_down",
    "lora.down": "lora_down",
    "lora_linear_layer.down": "lora_down",
    "lora_B": "lora_up",
    "lora_up": "lora_up",
    "lora.up": "lora_up",
    "lora_linear_layer.up": "lora_up",
    MAGNITUDE: "magnitude",
    "lora.magnitude": "magnitude",
    "alpha": "alpha",
    "lora.alpha": "alpha",
    "lora_linear_layer.alpha": "alpha",
    "dora_scale": "dora_scale",
}
_LONGEST_FIRST = "|".join(re.escape(part) for part in sorted(_PARTS, key=len, reverse=True))
_KEY = re.compile(
    rf"(.+?)\.({_LONGEST_FIRST}|lora_mid|hada_\w+|lokr_\w+)(?:\.default)?(?:\.weight)?"
)


def to_diffusers_keys(weights: TrainedWeights) -> dict[str, Tensor]:
    """Put the networks' names before peft's keys, as float16."""
    return {
        f"{network}.{key}": value.half()
        for network, lora in _states(weights).items()
        for key, value in lora.items()
    }


def adapter_metadata(weights: TrainedWeights) -> dict[str, str]:
    """Return the metadata from which diffusers builds a `LoraConfig` of each network."""
    config: dict[str, object] = {}
    for network, lora in _states(weights).items():
        ranks = {
            # peft matches ends, and one of transformers' text encoders lacks `text_model.`
            key.removesuffix(".lora_A.weight").removeprefix(TEXT_MODEL): len(value)
            for key, value in lora.items()
            if key.endswith(".lora_A.weight")
        }
        usual = Counter(ranks.values()).most_common(1)[0][0]
        others = {path: rank for path, rank in sorted(ranks.items()) if rank != usual}
        settings = {
            "r": usual,
            "lora_alpha": usual,
            "rank_pattern": others,
            "alpha_pattern": others,
            "target_modules": sorted(ranks),
            "use_dora": any(key.endswith(MAGNITUDE) for key in lora),
        }
        config |= {f"{network}.{name}": value for name, value in settings.items()}
    return {LORA_ADAPTER_METADATA_KEY: json.dumps(config, sort_keys=True)}


def _states(weights: TrainedWeights) -> dict[str, dict[str, Tensor]]:
    states = {
        "unet": weights.lora,
        "text_encoder": weights.text_encoder_lora,
        "text_encoder_2": weights.text_encoder_2_lora,
    }
    return {network: lora for network, lora in states.items() if lora}


def from_diffusers_key(key: str) -> Place | None:
    """Return where a tensor belongs; None if the key is not of this format."""
    network: Network = "unet"
    if match := _NETWORK.fullmatch(key):
        network, key = _NETWORKS[match[1]], match[2]
    match = _KEY.fullmatch(_PROCESSOR.sub(r".\1.lora.", key))
    if match is None:
        return None
    path, part = match[1], _PARTS.get(match[2], match[2])
    if network == "unet":
        path = from_sgm(path)
        return Place(network, f"{path}.0" if path.endswith(".to_out") else path, part)
    if old := _OLD_TEXT.fullmatch(path):
        path = f"{old[1]}.{old[2]}_proj"
    if not path.startswith((TEXT_MODEL, "text_projection")):
        path = f"{TEXT_MODEL}{path}"
    return Place(network, path, part)


def add_alphas(layers: Mapping[Network, Layers], metadata: Mapping[str, str]) -> None:
    """Give each layer without an alpha of its own the one of the file's metadata, if it has some.

    Raises:
        ValueError: The metadata cannot be read.
    """
    if LORA_ADAPTER_METADATA_KEY not in metadata:
        return
    try:
        config = json.loads(metadata[LORA_ADAPTER_METADATA_KEY])
    except json.JSONDecodeError as error:
        raise ValueError(
            f"the metadata {LORA_ADAPTER_METADATA_KEY} is not JSON: {error}"
        ) from error
    for network, of_network in layers.items():
        own = _of_network(config, network)
        if "lora_alpha" not in own:
            continue
        patterns = [
            (re.compile(rf"(?:.*\.)?(?:{pattern})"), alpha)  # as peft matches them
            for pattern, alpha in (own.get("alpha_pattern") or {}).items()
        ]
        for path, parts in of_network.items():
            special = (alpha for pattern, alpha in patterns if pattern.fullmatch(path))
            alpha = next(special, own["lora_alpha"])
            if own.get("use_rslora") and "lora_down" in parts:
                alpha *= len(parts["lora_down"]) ** 0.5  # arXiv:2312.03732: over sqrt(rank)
            parts.setdefault("alpha", torch.tensor(float(alpha)))


def _of_network(config: dict[str, object], network: Network) -> dict:
    """Return the settings of one network; a file of the U-Net alone may leave its name out."""
    if network == "unet" and "lora_alpha" in config:
        return config
    start = f"{network}."
    return {k.removeprefix(start): v for k, v in config.items() if k.startswith(start)}
