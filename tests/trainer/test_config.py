import dataclasses
import inspect

import pytest
from cog.input import FieldInfo

import train
from preprocess.config import PreprocessConfig
from trainer.config import TrainConfig

# inputs of the door that are no field of a config: what is trained on, where to, and old spellings
NOT_CONFIG = {
    *("input_images", "base_model", "class_images", "is_lora", "seed", "wandb_api_key"),
    *("init_weights", "skip_training", "hf_repo_id", "hf_token"),
}


def test_every_train_input_is_a_config_field_with_the_same_default():
    fields = {
        field.name: field.default
        for config in (PreprocessConfig, TrainConfig)
        for field in dataclasses.fields(config)
    }
    inputs = {}
    for name, parameter in inspect.signature(train.train).parameters.items():
        assert isinstance(parameter.default, FieldInfo), name
        if name not in NOT_CONFIG:
            inputs[name] = parameter.default.default
    assert {name: fields.get(name) for name in inputs} == inputs
    trainer_fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert trainer_fields - inputs.keys() == {"seed"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_train_steps": 0}, "max_train_steps must be at least 1, got 0"),
        ({"lora_rank": 0}, "lora_rank must be at least 1"),
        ({"ti_lr": 0.0}, "ti_lr must be greater than 0"),
        ({"lora_lr": -1e-4}, "lora_lr must be greater than 0"),
        ({"seed": -1}, "seed must be from 0 to 4294967295"),
        ({"resolution": 100}, "resolution must be a multiple of 8, got 100: take 96"),
        ({"resolution": 32}, "resolution must be at least 64"),
        ({"ti_train_fraction": 1.1}, r"ti_train_fraction must be in \[0, 1\]"),
        ({"lora_alpha": 0.0}, "lora_alpha must be greater than 0, got 0.0"),
        ({"lora_dropout": 1.0}, r"lora_dropout must be in \[0, 1\), got 1.0"),
        ({"caption_dropout": -0.1}, r"caption_dropout must be in \[0, 1\)"),
        ({"text_encoder_lr": -1.0}, "text_encoder_lr must be at least 0"),
        ({"snr_gamma": -5.0}, "snr_gamma must be at least 0"),
        ({"prior_loss_weight": 0.0}, "prior_loss_weight must be greater than 0"),
        ({"optimizer": "sgd"}, "optimizer must be adamw or adamw8bit or prodigy, got 'sgd'"),
        ({"class_prompt": " "}, "class_prompt must be words such as"),
        ({"class_prompt": "a TOK"}, "class_prompt must not contain TOK, which stands for your"),
        ({"token_map": "TOK"}, "token_map must be triggers with their numbers of vectors"),
        ({"export": "kohya"}, "export must be formats of cog, webui, diffusers, bundle"),
        ({"export": "bundle", "method": "full"}, "export=bundle is for LoRA, and method=full"),
        (
            {"export": "diffusers", "method": "textual_inversion"},
            "export=diffusers is for LoRA, and method=textual_inversion",
        ),
        ({"lora_max_mb": 6.0, "method": "full"}, "lora_max_mb is for LoRA, and method=full"),
        ({"lora_max_mb": -1.0}, "lora_max_mb must be at least 0"),
        (
            {"method": "textual_inversion", "text_encoder_lr": 1e-5},
            "text_encoder_lr trains LoRA, and method=textual_inversion embeddings alone",
        ),
        ({"lr_warmup_steps": -1}, "lr_warmup_steps must be at least 0"),
        ({"method": "dreambooth"}, "method must be lora or dora or textual_inversion or full"),
        (
            {"lr_scheduler": "exponential"},
            "lr_scheduler must be constant or constant_with_warmup or linear or",
        ),
        ({"lora_target": "everything"}, "lora_target must be attention or"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


def test_prodigy_with_rates_of_other_optimizers_explains_what_its_rates_are():
    with pytest.raises(ValueError, match=r"ti_lr=0.0003, lora_lr=0.0001.*ti_lr=1, lora_lr=1"):
        TrainConfig(optimizer="prodigy")
    with pytest.raises(ValueError, match=r"unet_learning_rate=1e-06 would hardly train"):
        TrainConfig(optimizer="prodigy", method="full", ti_lr=1.0)
    TrainConfig(optimizer="prodigy", ti_lr=1.0, lora_lr=1.0)


def test_seed_zero_is_a_seed():
    assert TrainConfig(seed=0).seed == 0


@pytest.mark.parametrize(
    ("num_examples", "epochs", "steps", "total"),
    [
        (10, 4000, 1000, 1000),  # max_train_steps is exact, whatever an epoch is
        (10, 2, 1000, 6),  # 3 steps an epoch
        (2, 5, 1000, 5),  # a set smaller than the batch has one step an epoch
    ],
)
def test_the_run_ends_at_whichever_limit_comes_first(
    num_examples: int, epochs: int, steps: int, total: int
):
    config = TrainConfig(num_train_epochs=epochs, max_train_steps=steps)
    assert config.total_steps(num_examples) == total
