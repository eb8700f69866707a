from pathlib import Path

import pytest
import torch

from sdxl.models import SDXLModels
from tests.full_size import full_size_unet
from tests.tiny_sdxl import load_tiny_sdxl
from trainer.config import TrainConfig
from trainer.hardware import (
    SDXL_UNET_PARAMETERS,
    choose_gradient_checkpointing,
    choose_mixed_precision,
    needed_gb,
)

CPU = torch.device("cpu")
CONFIG = TrainConfig(resolution=1024, train_batch_size=1)


def test_auto_says_what_it_decides_and_why(
    tiny_models: SDXLModels, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO"):
        assert choose_mixed_precision("auto", CPU) == "no"
        assert choose_gradient_checkpointing("auto", tiny_models, CONFIG, CPU) is False
    assert "mixed_precision=auto: no, since a cpu is exact in float32" in caplog.text
    assert "gradient_checkpointing=auto: off" in caplog.text


def test_what_the_user_says_is_done(tiny_models: SDXLModels):
    assert choose_mixed_precision("bf16", CPU) == "bf16"
    assert choose_mixed_precision("no", CPU) == "no"
    assert choose_gradient_checkpointing("on", tiny_models, CONFIG, CPU) is True
    assert choose_gradient_checkpointing("off", tiny_models, CONFIG, CPU) is False


def test_the_needed_memory_grows_with_pictures_and_with_what_trains(tiny_models: SDXLModels):
    def needed(**settings: object) -> float:
        return needed_gb(tiny_models, TrainConfig(resolution=1024, **settings))

    assert needed(train_batch_size=4) > needed(train_batch_size=1)
    assert needed(method="full") > needed()


def test_a_24_gb_card_holds_one_picture_of_1024_px_and_not_two(tiny_sdxl_dir: Path):
    models = load_tiny_sdxl(tiny_sdxl_dir, torch.bfloat16)
    models.unet = full_size_unet().to(torch.bfloat16)
    parameters = sum(p.numel() for p in models.unet.parameters())
    assert parameters == pytest.approx(SDXL_UNET_PARAMETERS, rel=1e-3)
    text_encoders = 1.63  # GB in bfloat16, which the tiny ones do not have
    one = needed_gb(models, CONFIG) + text_encoders
    two = needed_gb(models, TrainConfig(resolution=1024, train_batch_size=2)) + text_encoders
    assert one < 0.9 * 24 < two
