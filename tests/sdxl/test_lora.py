import pytest
import torch

from sdxl.lora import (
    add_lora,
    load_lora,
    lora_parameters,
    lora_state_dict,
    remove_lora,
    set_lora_scale,
)
from sdxl.lora_target import LORA_TARGET_MODULES, LoraTarget
from sdxl.models import SDXLModels

RANK = 2


def predict(models: SDXLModels) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        return models.unet(
            torch.randn(1, 4, 4, 4, generator=generator),
            torch.tensor([500]),
            torch.randn(1, 77, 48, generator=generator),
            added_cond_kwargs={
                "text_embeds": torch.randn(1, 32, generator=generator),
                "time_ids": torch.full((1, 6), 32.0),
            },
        ).sample


def add(models: SDXLModels, target: LoraTarget = "attention", seed: int = 0) -> None:
    add_lora(models.unet, RANK, RANK, target, torch.Generator().manual_seed(seed))


def train_a_little(models: SDXLModels) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in lora_parameters(models.unet):
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.3


def test_fresh_lora_leaves_the_model_unchanged(tiny_models: SDXLModels):
    before = predict(tiny_models)
    add(tiny_models)
    assert torch.equal(before, predict(tiny_models))


def test_only_lora_matrices_want_a_gradient_and_they_are_float32(tiny_models: SDXLModels):
    tiny_models.unet.to(torch.bfloat16)
    add(tiny_models)
    wanting = {n for n, p in tiny_models.unet.named_parameters() if p.requires_grad}
    assert wanting == {n for n, _ in tiny_models.unet.named_parameters() if ".lora_" in n}
    assert all(p.dtype == torch.float32 for p in lora_parameters(tiny_models.unet))


@pytest.mark.parametrize(
    ("target", "layer"),
    [
        ("attention", "attn1.to_out.0"),
        ("cross_attention", "attn2.to_k"),
        ("attention_feedforward", "ff.net.0.proj"),
        ("all", "resnets.0.conv1"),
    ],
)
def test_each_target_reaches_the_layers_it_names(
    tiny_models: SDXLModels, target: LoraTarget, layer: str
):
    add(tiny_models, target)
    paths = {key.split(".lora_")[0] for key in lora_state_dict(tiny_models.unet)}
    assert any(path.endswith(layer) for path in paths)
    assert any("attn1" in path for path in paths) == (target != "cross_attention")


def test_wider_targets_train_more_layers(tiny_models: SDXLModels):
    numbers = []
    for target in ("cross_attention", "attention", "attention_feedforward", "all"):
        assert target in LORA_TARGET_MODULES
        add(tiny_models, target)
        numbers.append(len(lora_parameters(tiny_models.unet)))
        remove_lora(tiny_models.unet)
    assert numbers == sorted(set(numbers))


def test_the_same_generator_seed_gives_the_same_matrices(tiny_models: SDXLModels):
    states = []
    for seed in (0, 0, 1):
        add(tiny_models, seed=seed)
        states.append(lora_state_dict(tiny_models.unet))
        remove_lora(tiny_models.unet)
    key = next(key for key in states[0] if "lora_A" in key)
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])


def test_trained_matrices_can_be_loaded_scaled_and_removed_exactly(tiny_models: SDXLModels):
    base = predict(tiny_models)
    add(tiny_models, "all")
    train_a_little(tiny_models)
    trained, state = predict(tiny_models), lora_state_dict(tiny_models.unet)
    remove_lora(tiny_models.unet)
    assert torch.equal(predict(tiny_models), base)

    load_lora(tiny_models.unet, state)
    assert torch.equal(predict(tiny_models), trained)
    set_lora_scale(tiny_models.unet, 0.0)
    torch.testing.assert_close(predict(tiny_models), base)
    set_lora_scale(tiny_models.unet, 0.5)
    half = predict(tiny_models)
    assert not torch.allclose(half, base)
    assert not torch.allclose(half, trained)
    remove_lora(tiny_models.unet)
    assert torch.equal(predict(tiny_models), base)


def test_matrices_of_another_base_are_refused_by_the_layer_that_does_not_fit(
    tiny_models: SDXLModels,
):
    path = "down_blocks.7.attentions.0.transformer_blocks.0.attn1.to_q"
    foreign = {
        f"{path}.lora_A.weight": torch.zeros(4, 640),
        f"{path}.lora_B.weight": torch.zeros(640, 4),
    }
    with pytest.raises(ValueError, match=r"down_blocks\.7.*another base model"):
        load_lora(tiny_models.unet, foreign)
