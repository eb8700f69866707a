import re

import pytest
import torch

from sdxl.lora import (
    ADAPTER,
    LoraSettings,
    add_lora,
    fill_lora,
    load_lora,
    load_text_encoder_lora,
    lora_parameters,
    lora_state_dict,
    remove_lora,
    text_encoder_lora_state,
)
from sdxl.lora_target import LORA_TARGET_MODULES, TEXT_ENCODER_MODULES, LoraTarget
from sdxl.models import SDXLModels
from sdxl.prompt import encode_prompts
from tests.full_size import full_size_unet
from tests.tiny_sdxl import predict_noise

RANK = 2


def add(
    models: SDXLModels, target: LoraTarget = "attention", seed: int = 0, **settings: object
) -> None:
    add_lora(
        models.unet,
        LORA_TARGET_MODULES[target],
        LoraSettings(**{"rank": RANK, "alpha": RANK, **settings}),
        torch.Generator().manual_seed(seed),
    )


def train_a_little(models: SDXLModels) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in lora_parameters(models.unet):
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.3


def test_fresh_lora_leaves_the_model_unchanged(tiny_models: SDXLModels):
    before = predict_noise(tiny_models)
    add(tiny_models)
    assert torch.equal(before, predict_noise(tiny_models))


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


def test_cross_attention_at_rank_4_is_6_mb_of_a_full_size_sdxl():
    unet = full_size_unet()
    layers = re.compile(rf".*\.(?:{LORA_TARGET_MODULES['cross_attention']})")
    shapes = [module.weight.shape for name, module in unet.named_modules() if layers.match(name)]
    num_parameters = sum(4 * (inputs + outputs) for outputs, inputs in shapes)
    assert 2 * num_parameters == pytest.approx(6.3e6, rel=0.01)  # bytes, in half precision


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
    base = predict_noise(tiny_models)
    add(tiny_models, "all")
    train_a_little(tiny_models)
    trained, state = predict_noise(tiny_models), lora_state_dict(tiny_models.unet)
    remove_lora(tiny_models.unet)
    assert torch.equal(predict_noise(tiny_models), base)

    load_lora(tiny_models.unet, state)
    assert torch.equal(predict_noise(tiny_models), trained)
    fill_lora(tiny_models.unet, state, ADAPTER, 0.0)
    torch.testing.assert_close(predict_noise(tiny_models), base)
    fill_lora(tiny_models.unet, state, ADAPTER, 0.5)
    half = predict_noise(tiny_models)
    assert not torch.allclose(half, base)
    assert not torch.allclose(half, trained)
    remove_lora(tiny_models.unet)
    assert torch.equal(predict_noise(tiny_models), base)


def test_alpha_scales_the_update_and_is_folded_into_the_state(tiny_models: SDXLModels):
    add(tiny_models, alpha=6.0)
    train_a_little(tiny_models)
    trained, state = predict_noise(tiny_models), lora_state_dict(tiny_models.unet)
    remove_lora(tiny_models.unet)
    load_lora(tiny_models.unet, state)
    torch.testing.assert_close(predict_noise(tiny_models), trained)
    halved = {k: v / 2 if ".lora_B." in k else v for k, v in state.items()}
    remove_lora(tiny_models.unet)
    load_lora(tiny_models.unet, halved)
    assert not torch.allclose(predict_noise(tiny_models), trained)


@pytest.mark.parametrize("target", ["attention", "all"])
def test_dora_survives_saving_and_loading_and_leaves_nothing_behind(
    tiny_models: SDXLModels, target: LoraTarget
):
    base = predict_noise(tiny_models)
    add(tiny_models, target, use_dora=True, alpha=3.0)
    torch.testing.assert_close(predict_noise(tiny_models), base)  # at first only rounding
    train_a_little(tiny_models)
    trained, state = predict_noise(tiny_models), lora_state_dict(tiny_models.unet)
    assert any(key.endswith(".lora_magnitude_vector") for key in state)
    remove_lora(tiny_models.unet)
    load_lora(tiny_models.unet, state)
    torch.testing.assert_close(predict_noise(tiny_models), trained)
    without_lengths = {k: v for k, v in state.items() if "magnitude" not in k}
    remove_lora(tiny_models.unet)
    assert torch.equal(predict_noise(tiny_models), base)
    load_lora(tiny_models.unet, without_lengths)
    assert not torch.allclose(predict_noise(tiny_models), trained)


def test_dropout_hides_inputs_in_training_alone(tiny_models: SDXLModels):
    add(tiny_models, dropout=0.5)
    train_a_little(tiny_models)
    still = predict_noise(tiny_models)
    assert torch.equal(predict_noise(tiny_models), still)
    tiny_models.unet.train()
    assert not torch.allclose(predict_noise(tiny_models), still)


def test_lora_of_both_text_encoders_survives_saving_and_loading(tiny_models: SDXLModels):
    settings = LoraSettings(rank=RANK, alpha=RANK)
    prompt = "a photo of a red ball"
    base = encode_prompts([prompt], tiny_models)
    for encoder in (tiny_models.text_encoder, tiny_models.text_encoder_2):
        add_lora(encoder, TEXT_ENCODER_MODULES, settings, torch.Generator().manual_seed(0))
        for i, parameter in enumerate(lora_parameters(encoder)):
            noise = torch.Generator().manual_seed(i)
            parameter.data += torch.randn(parameter.shape, generator=noise) * 0.3
        trained = encode_prompts([prompt], tiny_models)
        state = text_encoder_lora_state(encoder)
        # the name that files use, whatever transformers calls it
        assert "text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight" in state
        remove_lora(encoder)
        without = encode_prompts([prompt], tiny_models)
        assert torch.equal(without.prompt_embeds, base.prompt_embeds)
        load_text_encoder_lora(encoder, state)
        loaded = encode_prompts([prompt], tiny_models)
        torch.testing.assert_close(loaded.prompt_embeds, trained.prompt_embeds)
        assert not torch.allclose(loaded.prompt_embeds, base.prompt_embeds)
        remove_lora(encoder)


def test_matrices_of_different_ranks_can_be_loaded_together(tiny_models: SDXLModels):
    add(tiny_models)
    train_a_little(tiny_models)
    trained, state = predict_noise(tiny_models), lora_state_dict(tiny_models.unet)
    key = next(key for key in state if "lora_A" in key)
    # one layer as three columns, of which one adds nothing
    state[key] = torch.cat([state[key], torch.ones_like(state[key][:1])])
    other = key.replace("lora_A", "lora_B")
    state[other] = torch.cat([state[other], torch.zeros_like(state[other][:, :1])], dim=1)
    remove_lora(tiny_models.unet)
    load_lora(tiny_models.unet, state)
    torch.testing.assert_close(predict_noise(tiny_models), trained)


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
