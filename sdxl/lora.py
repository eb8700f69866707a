"""LoRA (arXiv:2106.09685) and DoRA (arXiv:2402.09353) on a network, injected by peft.

A LoRA state here has peft's own keys, and acts with scale 1 (alpha = rank):

    <module path>.lora_A.weight            (rank, in, ...)
    <module path>.lora_B.weight            (out, rank, ...)
    <module path>.lora_magnitude_vector    (out,) or (1, out, 1, 1), DoRA only
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

ADAPTER = "default"
MAGNITUDE = "lora_magnitude_vector"
TEXT_MODEL = "text_model."


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSettings:
    """What every pair of matrices has in common.

    Attributes:
        rank: Of the pair.
        alpha: The update is `alpha / rank * B A`.
        dropout: Part of the layer's input, in [0, 1), that training hides from the matrices.
        use_dora: Train the length of each output's weight vector apart from its direction.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    use_dora: bool = False


def add_lora(
    network: nn.Module, layers: str, settings: LoraSettings, generator: torch.Generator
) -> None:
    """Inject matrices, float32 whatever the dtype of `network`, and let only them train.

    A starts at N(0, 1 / rank) and B at zero, so the network is unchanged at first (cog-sdxl's
    initialization).

    Args:
        network: Changed in place.
        layers: A regular expression for the ends of module names; see `sdxl.lora_target`.
        settings: Of all of them.
        generator: On the CPU, so that every device starts from the same matrices.
    """
    inject_trainable_lora(network, rf".*\.(?:{layers})", settings)
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        parameter.data = parameter.data.float()
        if ".lora_A." in name:
            start = torch.randn(parameter.shape, generator=generator) / settings.rank
            parameter.data.copy_(start)


def inject_trainable_lora(
    network: nn.Module, target_modules: str | list[str], settings: LoraSettings
) -> None:
    """Inject matrices with the values that peft draws, and let only them train.

    Args:
        network: Changed in place.
        target_modules: Names of modules, or a regular expression for whole ones.
        settings: Of all of them.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  # peft takes floats
        lora_dropout=settings.dropout,
        use_dora=settings.use_dora,
        target_modules=target_modules,
    )
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # peft draws matrices of its own first
        inject_adapter_in_model(config, network, ADAPTER)
    network.train(network.training)  # what is new comes in training mode


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """What was injected into `network`, in its own order."""
    return [p for name, p in network.named_parameters() if ".lora_" in name]


def lora_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of what was injected, on the CPU, with `alpha / rank` folded into B."""
    config = network.peft_config[ADAPTER]  # pyright: ignore[reportIndexIssue]
    scale = config.lora_alpha / config.r
    state = {}
    for key, value in get_peft_model_state_dict(network, adapter_name=ADAPTER).items():
        copy = value.detach().clone().cpu().contiguous()
        state[key] = copy * scale if ".lora_B." in key else copy
    return state


def load_lora(network: nn.Module, state: dict[str, Tensor], adapter: str = ADAPTER) -> None:
    """Inject trained matrices, which act as B A.

    Args:
        network: Changed in place.
        state: By `network`'s own module names.
        adapter: Its name in `network`, which may hold others.

    Raises:
        ValueError: `state` has layers that `network` lacks, or other shapes: another base model's.
    """
    ranks = {path: len(value) for path, matrix, value in _matrices(state) if matrix == "lora_A"}
    inject_lora(network, state, ranks, adapter)
    fill_lora(network, state, adapter)


def check_lora_fits(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Raise ValueError if `state` has layers that `network` lacks, or other shapes."""
    modules = dict(network.named_modules())
    for path, matrix, value in _matrices(state):
        if matrix != "lora_A":
            continue
        shape = (len(state[f"{path}.lora_B.weight"]), *value.shape[1:])
        if getattr(getattr(modules.get(path), "weight", None), "shape", None) != shape:
            raise ValueError(
                f"the LoRA has weights for the layer {path} of {shape[1]} inputs and {shape[0]} "
                "outputs, which this base model does not have: it was trained on another base model"
            )


def inject_lora(
    network: nn.Module, state: dict[str, Tensor], ranks: dict[str, int], adapter: str
) -> None:
    """Inject matrices of the layers of `state`, with the values that peft draws; see `fill_lora`.

    Args:
        network: Changed in place.
        state: Trained matrices.
        ranks: Of each layer's new matrices, by its path; at least that of the trained ones.
        adapter: Its name.

    Raises:
        ValueError: `state` has layers that `network` lacks, or other shapes: another base model's.
    """
    check_lora_fits(network, state)
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {path: rank for path, rank in ranks.items() if rank != usual}
    config = LoraConfig(
        r=usual,
        lora_alpha=usual,
        rank_pattern=others,
        alpha_pattern=dict(others),
        use_dora=any(key.endswith(MAGNITUDE) for key in state),
        target_modules=list(ranks),
        init_lora_weights=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several are intended
        inject_adapter_in_model(config, network, adapter)
    network.train(network.training)  # what is new comes in training mode
    # in the network's own dtype: outside of autocast float32 would not meet half activations
    modules = dict(network.named_modules())
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            path = name.split(".lora_")[0]
            parameter.data = parameter.data.to(modules[path].weight.dtype)
            parameter.requires_grad_(False)


def fill_lora(
    network: nn.Module, state: dict[str, Tensor], adapter: str, scale: float = 1.0
) -> None:
    """Copy trained matrices into injected ones, to act as `scale * B A`.

    Of larger ranks, rows of A and columns of B that are left over become zero. `scale` goes into B:
    peft's own scaling stays 1, and nothing that `torch.compile` has seen changes.
    """
    with torch.no_grad():
        for path, matrix, value in _matrices(state):
            target = getattr(network.get_submodule(path), matrix)[adapter].weight
            if matrix == "lora_A":
                target[: len(value)].copy_(value)
                target[len(value) :].zero_()
            elif matrix == "lora_B":
                rank = value.shape[1]
                target[:, :rank].copy_(value if scale == 1 else value.float() * scale)
                target[:, rank:].zero_()
            else:
                target.copy_(value.reshape(target.shape))


def _matrices(state: dict[str, Tensor]) -> Iterator[tuple[str, str, Tensor]]:
    """Yield layer, kind (`lora_A`, `lora_B` or the magnitude) and tensor."""
    for key, value in state.items():
        path, _, matrix = key.removesuffix(".weight").rpartition(".")
        yield path, matrix, value


def activate_lora(network: nn.Module, adapters: Sequence[str]) -> None:
    """Let exactly these of the injected adapters act; none leaves the base's own layers."""
    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.set_adapter(list(adapters), inference_mode=True)


def text_encoder_lora_state(encoder: nn.Module) -> dict[str, Tensor]:
    """Return `lora_state_dict` of a text encoder, its keys beginning with `text_model.`.

    transformers 5 dropped that from the names of one of the two encoders; files keep it.
    """
    return {
        f"{TEXT_MODEL}{key.removeprefix(TEXT_MODEL)}": value
        for key, value in lora_state_dict(encoder).items()
    }


def load_text_encoder_lora(encoder: nn.Module, state: dict[str, Tensor]) -> None:
    """Inject what `text_encoder_lora_state` returned; see `load_lora`."""
    load_lora(encoder, in_names_of_encoder(encoder, state))


def in_names_of_encoder(encoder: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what `text_encoder_lora_state` returned by the names of `encoder`'s own modules."""
    names = dict(encoder.named_modules())
    prefix = TEXT_MODEL if TEXT_MODEL.removesuffix(".") in names else ""
    return {
        f"{prefix}{key.removeprefix(TEXT_MODEL)}" if key.startswith(TEXT_MODEL) else key: value
        for key, value in state.items()  # text_projection is beside the text model
    }


def remove_lora(network: nn.Module) -> None:
    """Take out whatever was injected; the base's own weights were never touched.

    It ends an injection or removal that was interrupted, too.
    """
    recurse_remove_peft_layers(network)
    network.__dict__.pop("peft_config", None)
