import pytest

from trainer.config import TrainConfig
from trainer.schedule import PivotalSchedule

STEPS = 100


def schedule(**values: object) -> PivotalSchedule:
    config = TrainConfig(**{"lr_warmup_steps": 0, **values})
    return PivotalSchedule.from_config(config, STEPS)


def test_the_pivot_is_a_step_and_the_lora_goes_on_after_it():
    s = schedule(ti_train_fraction=0.3)
    assert [s.trains_embeddings(step) for step in (29, 30)] == [True, False]
    assert s.lr("placeholder_embeddings", 29) == 3e-4
    assert s.lr("placeholder_embeddings", 30) == 0.0
    assert s.lr("unet_lora", 99) == 1e-4


def test_even_a_run_of_one_step_trains_embeddings():
    s = PivotalSchedule.from_config(TrainConfig(), num_steps=1)
    assert s.trains_embeddings(0)


def test_textual_inversion_alone_trains_embeddings_to_the_end():
    s = schedule(method="textual_inversion")
    assert s.trains_embeddings(STEPS - 1)
    assert s.peak_lr.keys() == {"placeholder_embeddings"}


@pytest.mark.parametrize("lr_scheduler", ["constant", "linear", "cosine"])
def test_warmup_acts_with_every_scheduler(lr_scheduler: str):
    s = schedule(lr_scheduler=lr_scheduler, lr_warmup_steps=9)
    rising = [s.lr("unet_lora", step) for step in range(10)]
    assert rising[0] == pytest.approx(1e-5)
    assert rising == sorted(rising)
    assert rising[9] == pytest.approx(1e-4, rel=1e-3)


def test_each_scheduler_has_its_course():
    middle = {
        name: schedule(lr_scheduler=name).lr("unet_lora", 25)
        for name in ("constant", "linear", "cosine")
    }
    assert middle["constant"] == 1e-4
    assert middle["linear"] == pytest.approx(0.75e-4)
    assert middle["cosine"] == pytest.approx(0.8535e-4, rel=1e-3)
    for name in ("linear", "cosine"):
        assert schedule(lr_scheduler=name).lr("unet_lora", STEPS - 1) < 0.02e-4


def test_full_training_uses_the_unets_own_rate():
    assert schedule(method="full", unet_learning_rate=5e-6).lr("unet", 50) == 5e-6
