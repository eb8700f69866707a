"""Every key that is written belongs to one layer of a full-size SDXL, and covers its target."""

import re

import pytest
import torch
from accelerate import init_empty_weights
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from sdxl.lora_target import LORA_TARGET_MODULES, TEXT_ENCODER_MODULES
from sdxl.weights.cog_keys import to_cog_keys
from sdxl.weights.diffusers_keys import from_diffusers_key, to_diffusers_keys
from sdxl.weights.kohya_keys import from_kohya_key, to_kohya_keys
from sdxl.weights.layer_names import from_sgm, has_sgm_numbers, to_sgm, with_dots
from sdxl.weights.trained import TrainedWeights
from tests.full_size import full_size_unet

NUM_LAYERS = {
    "attention": 560,
    "cross_attention": 280,
    "attention_feedforward": 700,
    "all": 767,
}


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return full_size_unet()


@pytest.fixture(scope="module")
def layers(unet: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer and convolution."""
    kinds = (nn.Linear, nn.Conv2d)
    return {name: module for name, module in unet.named_modules() if isinstance(module, kinds)}


def matrices(network: nn.Module, target: str, start: str = "") -> dict[str, Tensor]:
    """A LoRA of rank 1 without content for the layers of a target."""
    pattern = re.compile(rf".*\.(?:{target})")
    state = {}
    for name, module in network.named_modules():
        if pattern.fullmatch(name):
            outputs, inputs, *kernel = module.weight.shape
            state[f"{start}{name}.lora_A.weight"] = torch.empty(1, inputs, *kernel, device="meta")
            ones = [1] * len(kernel)
            state[f"{start}{name}.lora_B.weight"] = torch.empty(outputs, 1, *ones, device="meta")
    return state


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("target", LORA_TARGET_MODULES)
def test_diffusers_itself_maps_our_sgm_names_to_exactly_the_targeted_layers(
    unet: nn.Module, target: str
):
    lora = matrices(unet, LORA_TARGET_MODULES[target])
    assert len(lora) == 2 * NUM_LAYERS[target]
    ours = to_kohya_keys(TrainedWeights(concepts=(), embeddings=None, lora=lora))
    assert len(ours) == 3 * NUM_LAYERS[target]
    names = ("lora_unet_input_blocks_", "lora_unet_middle_block_", "lora_unet_output_blocks_")
    assert all(key.startswith(names) for key in ours)

    mapped = _maybe_map_sgm_blocks_to_diffusers(dict(ours), unet.config)
    theirs, alphas = _convert_non_diffusers_lora_to_diffusers(mapped)
    assert set(alphas.values()) == {1.0}
    theirs = {key.removeprefix("unet."): value for key, value in theirs.items()}
    assert shapes(convert_unet_state_dict_to_peft(theirs)) == shapes(lora)


@pytest.mark.parametrize("target", LORA_TARGET_MODULES)
def test_cog_names_and_diffusers_names_cover_exactly_the_targeted_layers(
    unet: nn.Module, target: str
):
    lora = matrices(unet, LORA_TARGET_MODULES[target])
    assert shapes(convert_unet_state_dict_to_peft(to_cog_keys(lora))) == shapes(lora)
    peft = to_diffusers_keys(TrainedWeights(concepts=(), embeddings=None, lora=lora))
    assert {key.removeprefix("unet.") for key in peft} == lora.keys()


@pytest.mark.parametrize(
    ("network", "width", "num_layers"), [("text_encoder", 768, 12), ("text_encoder_2", 1280, 32)]
)
def test_text_encoder_names_are_those_that_diffusers_reads(
    network: str, width: int, num_layers: int
):
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=num_layers,
        num_attention_heads=width // 64,
    )  # fmt: skip
    with init_empty_weights():
        encoder = CLIPTextModel(config)
    lora = matrices(encoder, TEXT_ENCODER_MODULES, "text_model.")
    assert len(lora) == 2 * 4 * num_layers
    weights = TrainedWeights(concepts=(), embeddings=None, **{f"{network}_lora": lora})
    theirs, _ = _convert_non_diffusers_lora_to_diffusers(to_kohya_keys(weights))
    theirs = {key.removeprefix(f"{network}."): value for key, value in theirs.items()}
    assert shapes(convert_state_dict_to_peft(theirs)) == shapes(lora)
    assert to_diffusers_keys(weights).keys() == {f"{network}.{key}" for key in lora}


def test_both_namings_of_every_layer_are_read_back(layers: dict[str, nn.Module]):
    assert len(layers) == 794
    sgm = {to_sgm(path) for path in layers}
    assert len(sgm) == len(layers)
    for path in layers:
        assert with_dots(path.replace(".", "_")) == path
        assert from_sgm(path) == path
        for name in (path, to_sgm(path)):
            place = from_kohya_key(f"lora_unet_{name.replace('.', '_')}.lora_down.weight")
            assert place == ("unet", path, "lora_down")
        assert from_diffusers_key(f"diffusion_model.{to_sgm(path)}.lora_up.weight") == (
            "unet",
            path,
            "lora_up",
        )


@pytest.mark.parametrize(
    ("path", "sgm"),
    [
        # sampled from the checkpoint that Stability published
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.2.attentions.1.proj_out", "input_blocks.8.1.proj_out"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"),
        ("mid_block.resnets.1.conv2", "middle_block.2.out_layers.3"),
        ("mid_block.attentions.0.proj_in", "middle_block.1.proj_in"),
        ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
        ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        ("up_blocks.2.resnets.2.time_emb_proj", "output_blocks.8.0.emb_layers.1"),
        ("conv_in", "input_blocks.0.0"),
        ("add_embedding.linear_2", "label_emb.0.2"),
    ],
)
def test_sgm_names_of_known_layers(path: str, sgm: str):
    assert to_sgm(path) == sgm
    assert from_sgm(sgm) == path


def test_sgm_numbers_are_used_only_where_they_are_certain(layers: dict[str, nn.Module]):
    assert has_sgm_numbers(layers)
    assert not has_sgm_numbers(["down_blocks.1.attentions.0.proj_in"])
    assert not has_sgm_numbers(["up_blocks.1.attentions.1.proj_in"])  # as KOALA
    assert not has_sgm_numbers(["up_blocks.1.attentions.3.proj_in"])
    assert not has_sgm_numbers([])
