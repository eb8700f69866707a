"""A training that goes on from an earlier fine-tune (`init_weights`).

Everything of the earlier fine-tune is in the model at the first step, which so predicts as it did.
What `method` and `text_encoder_lr` train goes on from there; what they do not train stays as it is.
"""

import re
from dataclasses import replace

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from sdxl.concept import Concept, read_concepts
from sdxl.downloads import is_same_base
from sdxl.downloads.addresses import is_address, shown
from sdxl.lora import (
    ADAPTER,
    MAGNITUDE,
    LoraSettings,
    add_lora,
    check_lora_fits,
    inject_trainable_lora,
)
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.networks import check_unet_fits, unet_shapes
from sdxl.weights.trained import TrainedWeights
from trainer.config import TrainConfig

NOTHING = TrainedWeights(concepts=(), embeddings=None)
"""What a training starts from that goes on from nothing."""


def continue_config(config: TrainConfig, weights: TrainedWeights) -> TrainConfig:
    """Return the settings with the concepts of the earlier fine-tune in `token_map`.

    A concept of both keeps its number of vectors; those that the pictures do not show stay in the
    model too.

    Raises:
        ValueError: The settings cannot go on from `weights`.
    """
    _check_method(config, weights)
    for state in _trained_states(config, weights):
        _check_rank(state, config.lora_rank)
    known = {concept.trigger: len(concept.placeholder_tokens) for concept in weights.concepts}
    asked = {concept.trigger: len(concept.placeholder_tokens) for concept in config.concepts}
    for trigger, number in asked.items():
        if config.token_map.strip() and known.get(trigger, number) != number:
            raise ValueError(
                f"token_map gives {trigger} {number} vectors, and it has {known[trigger]} in "
                f"init_weights: write {trigger}:{known[trigger]}"
            )
    token_map = ",".join(f"{trigger}:{number}" for trigger, number in {**asked, **known}.items())
    if read_concepts(config.token_string, token_map) == config.concepts:
        return config
    return replace(config, token_map=token_map)


def continuation_notices(
    config: TrainConfig, weights: TrainedWeights, base_model: str
) -> tuple[str, ...]:
    """Return what the user should know of `weights` and the run that goes on from them."""
    notices = []
    earlier = weights.base_model
    if earlier and not is_same_base(earlier, base_model):
        notices.append(
            f"init_weights were trained on base_model={earlier}, and this training is on "
            f"{base_model}: they may not suit each other."
        )
    known = [concept.trigger for concept in weights.concepts]
    fresh = [concept.trigger for concept in config.concepts if concept.trigger not in known]
    if fresh and known:
        notices.append(
            f"init_weights know {', '.join(known)}, and not {', '.join(fresh)}, which starts anew: "
            "token_string names the word that goes on."
        )
    return tuple(notices)


def shown_name(name: str) -> str:
    """Return the name of weights as logs and records may show it: no passwords of an address."""
    return shown(name) if is_address(name) else name


def continue_embeddings(
    drawn: PlaceholderEmbeddings, concepts: tuple[Concept, ...], weights: TrainedWeights
) -> PlaceholderEmbeddings:
    """Return the start rows of a run: the trained ones of the concepts that `weights` know.

    Args:
        drawn: The start rows of all `concepts`.
        concepts: Of the run; each has as many vectors as in `weights`, see `continue_config`.
        weights: The earlier fine-tune.

    Raises:
        ValueError: The trained rows are of other widths.
    """
    earlier = weights.embeddings
    if earlier is None:
        return drawn
    tokens = {concept.trigger: concept.placeholder_tokens for concept in weights.concepts}
    tables = []
    for start, trained in ((drawn.clip_l, earlier.clip_l), (drawn.clip_g, earlier.clip_g)):
        if start.shape[1] != trained.shape[1]:
            raise ValueError(
                f"the embeddings of init_weights are {trained.shape[1]} wide, and a text encoder "
                f"of this base_model is {start.shape[1]} wide: they were trained on another kind "
                "of base model"
            )
        table = start.clone()
        for concept in concepts:
            for token, known in zip(
                concept.placeholder_tokens, tokens.get(concept.trigger, ()), strict=False
            ):
                table[drawn.tokens.index(token)] = trained[earlier.tokens.index(known)]
        tables.append(table)
    return PlaceholderEmbeddings(drawn.tokens, tables[0], tables[1])


def continue_unet(unet: nn.Module, state: dict[str, Tensor]) -> None:
    """Put the trained weights of a whole U-Net in place of the base's.

    Raises:
        ValueError: The base has none of that name and shape.
    """
    own = unet_shapes(unet)
    check_unet_fits(own, state, "the U-Net of init_weights", "this base_model")
    unet.load_state_dict(state, strict=False)


def continue_lora(
    network: nn.Module,
    state: dict[str, Tensor],
    layers: str,
    settings: LoraSettings,
    generator: torch.Generator,
) -> None:
    """Inject matrices as `sdxl.lora.add_lora` does, those of `state` with their trained values.

    All have the rank of `settings`: trained ones get further rows of A, drawn, and columns of B,
    zero, so that the network is what `state` makes of it. A LoRA becomes a DoRA with the lengths
    that it has.

    Args:
        network: Changed in place.
        state: By `network`'s own module names; empty is `add_lora`.
        layers: A regular expression as for `add_lora`; the layers of `state` get matrices too.
        settings: Of all of them.
        generator: On the CPU.

    Raises:
        ValueError: `state` has layers that `network` lacks, or other shapes: another base model's.
    """
    if not state:
        add_lora(network, layers, settings, generator)
        return
    try:
        check_lora_fits(network, state)
    except ValueError as error:
        raise ValueError(f"init_weights: {error}") from error
    target = re.compile(rf".*\.(?:{layers})")
    names = {name for name, _ in network.named_modules() if target.fullmatch(name)}
    names |= {key.removesuffix(_A) for key in state if key.endswith(_A)}
    inject_trainable_lora(network, sorted(names), settings)
    for name in sorted(names):
        own = {key: state[f"{name}.{key}"] for key in _KEYS if f"{name}.{key}" in state}
        layer = network.get_submodule(name)
        assert isinstance(layer, LoraLayer)
        _fill(layer, own, settings, generator)


_A, _B = ".lora_A.weight", ".lora_B.weight"
_KEYS = (_A[1:], _B[1:], MAGNITUDE)


def _fill(
    layer: LoraLayer, own: dict[str, Tensor], settings: LoraSettings, generator: torch.Generator
) -> None:
    """Give a layer that peft injected its start values, float32."""
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    down.data = torch.randn(down.shape, generator=generator).to(down.device) / settings.rank
    up.data = torch.zeros_like(up, dtype=torch.float32)
    if own:
        rank = len(own[_A[1:]])
        down.data[:rank] = own[_A[1:]].to(down)
        up.data[:, :rank] = own[_B[1:]].to(up) * (settings.rank / settings.alpha)
    if not settings.use_dora:
        return
    magnitude = layer.lora_magnitude_vector[ADAPTER]
    magnitude.update_layer(
        base_layer=layer.get_base_layer(),
        lora_A=down.data,
        lora_B=up.data,
        scaling=layer.scaling[ADAPTER],
    )
    if MAGNITUDE in own:
        magnitude.weight.data = own[MAGNITUDE].to(down).reshape(magnitude.weight.shape)
    magnitude.weight.data = magnitude.weight.data.float()


def _trained_states(config: TrainConfig, weights: TrainedWeights) -> list[dict[str, Tensor]]:
    """Return the matrices of `weights` that go on being trained."""
    states = [weights.lora] if config.trains_lora else []
    if config.text_encoder_lr:
        states += [weights.text_encoder_lora, weights.text_encoder_2_lora]
    return states


def _check_method(config: TrainConfig, weights: TrainedWeights) -> None:
    method = config.method
    if weights.unet and method != "full":
        raise ValueError(
            f"init_weights are a whole U-Net, and method={method} trains beside one: take "
            "method=full, or make a base model of them (python -m sdxl.weights bake) and give that "
            "as base_model"
        )
    if weights.lora and method == "full":
        raise ValueError(
            "init_weights are LoRA, and method=full trains the whole U-Net: take method=lora, or "
            "make a base model of them (python -m sdxl.weights bake) and give that as base_model"
        )
    has_magnitudes = any(
        key.endswith(MAGNITUDE) for state in _trained_states(config, weights) for key in state
    )
    if has_magnitudes and method != "dora":
        raise ValueError(
            f"init_weights are DoRA, which method={method} cannot train: take method=dora"
        )


def _check_rank(state: dict[str, Tensor], lora_rank: int) -> None:
    largest = max((len(value) for key, value in state.items() if key.endswith(_A)), default=0)
    if largest > lora_rank:
        raise ValueError(
            f"init_weights have LoRA of rank {largest}, more than lora_rank={lora_rank}: set "
            f"lora_rank={largest}, or make them smaller (python -m sdxl.weights resize FILE --rank "
            f"{lora_rank} -o SMALLER)"
        )
