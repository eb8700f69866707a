import dataclasses
import inspect

import pytest
from cog.input import FieldInfo

import train
from preprocess.config import PreprocessConfig
from trainer.config import TrainConfig

# inputs of the door that are no field of a config: what is trained on, and old spellings
NOT_CONFIG = {"input_images", "base_model", "is_lora", "seed"}
# fields that no input sets yet
NOT_INPUT = {"seed", "gradient_accumulation_steps", "max_grad_norm", "num_placeholder_tokens"}


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
    assert trainer_fields - inputs.keys() == NOT_INPUT


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
        ({"ti_train_fraction": 0.0}, r"ti_train_fraction must be in \(0, 1\]"),
        ({"lr_warmup_steps": -1}, "lr_warmup_steps must be at least 0"),
        ({"method": "dreambooth"}, "method must be lora or textual_inversion or full"),
        ({"lr_scheduler": "exponential"}, "lr_scheduler must be constant or linear or cosine"),
        ({"lora_target": "everything"}, "lora_target must be attention or"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


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
