from collections.abc import Callable

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from inference.lora_slots import LoraSlots, slot_ranks
from sdxl.lora import LoraSettings, add_lora, load_lora, lora_state_dict, remove_lora
from sdxl.lora_target import LORA_TARGET_MODULES, LoraTarget
from sdxl.models import SDXLModels
from tests.tiny_sdxl import predict_noise

LoraState = dict[str, torch.Tensor]
MakeLora = Callable[..., LoraState]


@pytest.fixture
def make_lora(tiny_models: SDXLModels) -> MakeLora:
    def make(
        seed: int = 0, rank: int = 2, target: LoraTarget = "attention", use_dora: bool = False
    ) -> LoraState:
        generator = torch.Generator().manual_seed(seed)
        settings = LoraSettings(rank=rank, alpha=rank, use_dora=use_dora)
        add_lora(tiny_models.unet, LORA_TARGET_MODULES[target], settings, generator)
        state = lora_state_dict(tiny_models.unet)
        remove_lora(tiny_models.unet)
        return {k: v + torch.randn(v.shape, generator=generator) * 0.3 for k, v in state.items()}

    return make


def layers(models: SDXLModels) -> list[int]:
    return [id(m) for m in models.unet.modules() if isinstance(m, BaseTunerLayer)]


def alone(models: SDXLModels, *loras: tuple[LoraState, float]) -> torch.Tensor:
    """What a network that never held anything else predicts."""
    slots = LoraSlots(models.unet)
    slots.hold(loras)
    prediction = predict_noise(models)
    slots.clear()
    return prediction


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("target", ["attention", "all"])
def test_a_lora_in_a_larger_slot_acts_as_it_was_trained(
    tiny_models: SDXLModels, make_lora: MakeLora, target: LoraTarget, use_dora: bool
):
    state = make_lora(rank=3, target=target, use_dora=use_dora)
    load_lora(tiny_models.unet, state)
    trained = predict_noise(tiny_models)
    remove_lora(tiny_models.unet)
    torch.testing.assert_close(alone(tiny_models, (state, 1.0)), trained)


def test_loras_that_fit_are_exchanged_without_touching_a_layer(
    tiny_models: SDXLModels, make_lora: MakeLora
):
    first, second = make_lora(seed=0, rank=2), make_lora(seed=1, rank=5)
    expected = [alone(tiny_models, (state, 1.0)) for state in (first, second)]
    slots = LoraSlots(tiny_models.unet)
    slots.hold([(first, 1.0)])
    injected = layers(tiny_models)
    for state, prediction in zip((second, first), reversed(expected), strict=True):
        slots.hold([(state, 1.0)])
        assert torch.equal(predict_noise(tiny_models), prediction)
        assert layers(tiny_models) == injected


@pytest.mark.parametrize("other", [{"target": "all"}, {"rank": 17}, {"use_dora": True}])
def test_one_that_does_not_fit_is_injected_anew_and_acts_as_alone(
    tiny_models: SDXLModels, make_lora: MakeLora, other: dict
):
    first, second = make_lora(seed=0), make_lora(seed=1, **other)
    expected = alone(tiny_models, (second, 0.5))
    slots = LoraSlots(tiny_models.unet)
    slots.hold([(first, 1.0)])
    slots.hold([(second, 0.5)])
    assert torch.equal(predict_noise(tiny_models), expected)


def test_several_act_together_and_the_rest_of_an_earlier_request_does_not(
    tiny_models: SDXLModels, make_lora: MakeLora
):
    base = predict_noise(tiny_models)
    first, second = make_lora(seed=0), make_lora(seed=1, target="all")
    both = alone(tiny_models, (first, 0.7), (second, -0.4))
    one = alone(tiny_models, (second, -0.4))
    assert not torch.allclose(both, one)
    slots = LoraSlots(tiny_models.unet)
    for loras, expected in (
        ([(first, 0.7), (second, -0.4)], both),
        ([(second, -0.4)], one),
        ([(first, 0.7), (second, -0.4)], both),
        ([], base),
    ):
        slots.hold(loras)
        assert torch.equal(predict_noise(tiny_models), expected)


def test_scales_are_linear_up_to_negative_ones_and_zero_is_the_base(
    tiny_models: SDXLModels, make_lora: MakeLora
):
    base = predict_noise(tiny_models)
    small = {k: v * 0.01 if ".lora_B." in k else v for k, v in make_lora().items()}
    change = alone(tiny_models, (small, 1.0)) - base
    for scale in (-1.0, 0.5, 2.0):
        scaled = alone(tiny_models, (small, scale)) - base
        torch.testing.assert_close(scaled, change * scale, rtol=0.2, atol=change.abs().max() / 5)
    dora = make_lora(use_dora=True)
    assert torch.equal(alone(tiny_models, (dora, 0.0)), base)


def test_clearing_gives_the_network_its_own_layers_back(
    tiny_models: SDXLModels, make_lora: MakeLora
):
    before = {name: id(module) for name, module in tiny_models.unet.named_modules()}
    slots = LoraSlots(tiny_models.unet)
    slots.hold([(make_lora(target="all"), 1.0), (make_lora(seed=1), 1.0)])
    slots.clear()
    assert {name: id(module) for name, module in tiny_models.unet.named_modules()} == before


def test_nothing_in_a_slot_asks_for_a_gradient(tiny_models: SDXLModels, make_lora: MakeLora):
    LoraSlots(tiny_models.unet).hold([(make_lora(), 1.0)])
    assert not any(parameter.requires_grad for parameter in tiny_models.unet.parameters())


def test_usual_ranks_share_a_slot_rank():
    def slot(rank: int) -> int:
        return slot_ranks({"layer.lora_A.weight": torch.zeros(rank, 4)})["layer"]

    assert [slot(rank) for rank in (1, 16, 17, 32, 33, 64, 128)] == [16, 16, 32, 32, 64, 64, 128]


def test_slots_of_a_half_precision_network_are_in_its_dtype(
    tiny_models: SDXLModels, make_lora: MakeLora
):
    state = make_lora()
    tiny_models.unet.to(torch.bfloat16)
    LoraSlots(tiny_models.unet).hold([(state, 1.0)])
    dtypes = {p.dtype for name, p in tiny_models.unet.named_parameters() if ".lora_" in name}
    assert dtypes == {torch.bfloat16}
