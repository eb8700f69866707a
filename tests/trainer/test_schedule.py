from typing import get_args

import pytest

from trainer.config import LrScheduler, TrainConfig
from trainer.schedule import PivotalSchedule

STEPS = 100


def schedule(**values: object) -> PivotalSchedule:
    config = TrainConfig(**{"lr_warmup_steps": 0, **values})
    return PivotalSchedule.from_config(config, STEPS)


def test_the_pivot_is_a_step_and_the_lora_goes_on_after_it():
    s = schedule(ti_train_fraction=0.3)
    assert [s.trains_text(step) for step in (29, 30)] == [True, False]
    assert s.lr("placeholder_embeddings", 0) == 3e-4
    assert s.lr("placeholder_embeddings", 30) == 0.0
    assert s.lr("unet_lora", 99) == 1e-4


def test_even_a_run_of_one_step_trains_embeddings():
    s = PivotalSchedule.from_config(TrainConfig(), num_steps=1)
    assert s.trains_text(0)


def test_textual_inversion_alone_trains_embeddings_to_the_end():
    s = schedule(method="textual_inversion")
    assert s.trains_text(STEPS - 1)
    assert s.peak_lr.keys() == {"placeholder_embeddings"}


@pytest.mark.parametrize("lr_scheduler", get_args(LrScheduler))
def test_warmup_acts_with_every_scheduler(lr_scheduler: str):
    s = schedule(lr_scheduler=lr_scheduler, lr_warmup_steps=9)
    rising = [s.lr("unet_lora", step) for step in range(10)]
    assert rising[0] == pytest.approx(1e-5)
    assert rising == sorted(rising)
    assert rising[9] == pytest.approx(1e-4, rel=1e-3)


def test_each_scheduler_has_its_course():
    middle = {
        name: schedule(lr_scheduler=name).lr("unet_lora", 25) for name in get_args(LrScheduler)
    }
    assert middle["constant"] == middle["constant_with_warmup"] == 1e-4
    assert middle["cosine_with_restarts"] == pytest.approx(0.1464e-4, rel=1e-3)  # 3/4 of a cycle
    assert middle["linear"] == pytest.approx(0.75e-4)
    assert middle["cosine"] == pytest.approx(0.8535e-4, rel=1e-3)
    for name in ("linear", "cosine"):
        assert schedule(lr_scheduler=name).lr("unet_lora", STEPS - 1) < 0.02e-4


def test_the_text_side_settles_before_it_is_frozen():
    s = schedule(ti_train_fraction=0.5, text_encoder_lr=1e-5)
    for group in ("placeholder_embeddings", "text_encoder_lora"):
        rates = [s.lr(group, step) for step in range(STEPS)]
        assert rates[:50] == sorted(rates[:50], reverse=True)
        assert 0 < rates[49] < 0.01 * rates[0]
        assert rates[25] == pytest.approx(rates[0] / 2)
        assert not any(rates[50:])


def test_without_a_pivot_the_text_side_follows_the_scheduler():
    s = schedule(ti_train_fraction=1.0, lr_scheduler="linear")
    rates = [s.lr(group, 50) / s.peak_lr[group] for group in s.peak_lr]
    assert rates == pytest.approx([0.5, 0.5])


def test_no_fraction_trains_no_text_side():
    s = schedule(ti_train_fraction=0.0)
    assert not s.trains_text(0)
    assert s.courses()["placeholder_embeddings"] == [0.0] * STEPS


def test_restarts_begin_again_at_the_peak():
    s = schedule(lr_scheduler="cosine_with_restarts", lr_num_cycles=4)
    assert [s.lr("unet_lora", step) for step in (0, 25, 50, 75)] == pytest.approx([1e-4] * 4)
    assert s.lr("unet_lora", 24) < 0.01e-4


def test_full_training_uses_the_unets_own_rate():
    assert schedule(method="full", unet_learning_rate=5e-6).lr("unet", 50) == 5e-6
