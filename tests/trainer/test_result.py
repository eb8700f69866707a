import random
from dataclasses import asdict
from pathlib import Path

import torch

from preprocess.config import PreprocessConfig
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.archive import save_weights
from sdxl.weights.trained import TrainedWeights
from trainer.config import TrainConfig
from trainer.result import training_record
from trainer.schedule import PivotalSchedule
from trainer.tracking import EVENTS_NAME, tensorboard_events


def test_an_archive_of_textual_inversion_is_100_kb_after_1000_steps_of_sdxl(
    tiny_models: SDXLModels, tmp_path: Path
):
    config = TrainConfig(method="textual_inversion")
    noise = random.Random(0)
    losses = [round(noise.random(), 6) for _ in range(1000)]
    courses = PivotalSchedule.from_config(config, 1000).courses()
    settings = {**asdict(PreprocessConfig()), **asdict(config)}
    weights = TrainedWeights(
        concepts=config.concepts,
        embeddings=PlaceholderEmbeddings(
            ("<s0>", "<s1>"), torch.randn(2, 768), torch.randn(2, 1280)
        ),
        record={**training_record("sdxl", tiny_models, 0, settings), "losses": losses},
    )
    members = {EVENTS_NAME: tensorboard_events(losses, courses)}
    save_weights(weights, tmp_path / "w.tar", members)
    assert (tmp_path / "w.tar").stat().st_size < 100_000
