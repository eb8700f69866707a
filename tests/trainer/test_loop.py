"""The loop on a tiny real SDXL. `STEPS` is short, so learning rates are high."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from preprocess.manifest import Manifest
from sdxl.concept import Concept
from sdxl.lora import add_lora, lora_state_dict
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import InstalledEmbeddings, PlaceholderEmbeddings
from tests.tiny_sdxl import load_tiny_sdxl
from trainer.config import TrainConfig
from trainer.dataset import LatentDataset
from trainer.loop import train_loop

CONCEPT = Concept.with_vectors("TOK", 2)
CONFIG = TrainConfig(
    resolution=64, max_train_steps=4, train_batch_size=2, ti_lr=1e-2, lora_lr=1e-2, lora_rank=2,
    lr_warmup_steps=0,
)  # fmt: skip


class Run:
    """One training of a tiny model, and what was seen on the way."""

    def __init__(
        self,
        models: SDXLModels,
        manifest: Manifest,
        config: TrainConfig,
        mixed_precision: str = "no",
    ) -> None:
        self.models = models
        AcceleratorState._reset_state()
        accelerator = Accelerator(cpu=True, mixed_precision=mixed_precision)
        generator = torch.Generator().manual_seed(config.seed)
        start = PlaceholderEmbeddings.random(CONCEPT.placeholder_tokens, models, generator)
        if config.method == "lora":
            add_lora(models.unet, config.lora_rank, config.lora_rank, "attention", generator)
        self.embeddings: InstalledEmbeddings = start.install(models)
        self.rows = [start.clip_l]  # before step 0, 1, ...
        self.lora = [lora_state_dict(models.unet) if config.method == "lora" else {}]
        dataset = LatentDataset(manifest, models.vae)
        self.losses = train_loop(
            models, self.embeddings, CONCEPT, dataset, config, accelerator, self._look
        )

    def _look(self, step: int, losses: Tensor) -> None:
        assert len(losses) == step
        self.rows.append(self.embeddings.state().clip_l)
        if self.lora[0]:
            self.lora.append(lora_state_dict(self.models.unet))


@pytest.fixture
def run(tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]):
    def train(num_pictures: int = 3, caption: str = "a photo of TOK, ", **changes: object) -> Run:
        manifest = make_manifest(num_pictures, size=(64, 64), caption=caption)
        return Run(tiny_models, manifest, replace(CONFIG, **changes))

    return train


def moved(states: list, step: int) -> bool:
    before, after = states[step], states[step + 1]
    if isinstance(before, Tensor):
        return not torch.equal(before, after)
    return any(not torch.equal(before[key], after[key]) for key in before)


def test_embeddings_stop_changing_at_the_pivot_and_the_lora_goes_on(run: Callable[..., Run]):
    result = run()
    assert [moved(result.rows, step) for step in range(4)] == [True, True, False, False]
    assert all(moved(result.lora, step) for step in range(4))


def test_the_lora_keeps_its_adam_moments_over_the_pivot(run: Callable[..., Run]):
    # without them the first step after the pivot would move every entry by lr, as the first does
    result = run(max_train_steps=8)
    key = next(key for key in result.lora[0] if "lora_B" in key)
    steps = [(result.lora[i + 1][key] - result.lora[i][key]).abs() for i in range(8)]
    assert (steps[0] > 0.9e-2).all()
    assert (steps[4] > 0.9e-2).float().mean() < 0.9


def test_a_run_shorter_than_one_epoch_still_trains_embeddings(run: Callable[..., Run]):
    assert moved(run(num_pictures=12, max_train_steps=2).rows, 0)


def test_the_run_has_exactly_max_train_steps(run: Callable[..., Run]):
    assert len(run(max_train_steps=3).losses) == 3


def test_epochs_end_the_run_if_they_come_first(run: Callable[..., Run]):
    assert len(run(num_train_epochs=1, max_train_steps=50).losses) == 2  # 3 pictures, 2 a batch


def test_the_base_never_changes(run: Callable[..., Run], tiny_sdxl_dir: Path):
    result = run()
    base = load_tiny_sdxl(tiny_sdxl_dir)
    for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
        trained = dict(getattr(result.models, name).named_parameters())
        for key, value in getattr(base, name).named_parameters():
            key = key if key in trained else key.replace(".weight", ".base_layer.weight")
            key = key if key in trained else key.replace(".bias", ".base_layer.bias")
            key = key.replace("token_embedding.base_layer", "token_embedding.table")
            assert torch.equal(trained[key], value), (name, key)


def test_textual_inversion_trains_the_embeddings_alone_and_to_the_end(run: Callable[..., Run]):
    result = run(method="textual_inversion")
    assert all(moved(result.rows, step) for step in range(4))
    assert not any("lora" in name for name, _ in result.models.unet.named_parameters())


def test_full_training_really_trains_the_unet(run: Callable[..., Run], tiny_models: SDXLModels):
    before = {k: v.clone() for k, v in tiny_models.unet.state_dict().items()}
    run(method="full", unet_learning_rate=1e-6)
    after = tiny_models.unet.state_dict()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(changed) > 0.9 * len(before)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    run: Callable[..., Run],
    tiny_sdxl_dir: Path,
    make_manifest: Callable[..., Manifest],
    seed: int,
):
    losses = run(seed=seed).losses
    manifest = make_manifest(3, size=(64, 64))
    again = Run(load_tiny_sdxl(tiny_sdxl_dir), manifest, replace(CONFIG, seed=seed))
    assert again.losses == losses
    other = Run(load_tiny_sdxl(tiny_sdxl_dir), manifest, replace(CONFIG, seed=seed + 1))
    assert other.losses != losses


def test_a_bfloat16_base_trains_float32_weights_as_on_a_gpu(
    tiny_sdxl_dir: Path, make_manifest: Callable[..., Manifest]
):
    models = load_tiny_sdxl(tiny_sdxl_dir, torch.bfloat16)
    manifest = make_manifest(3, size=(64, 64))
    result = Run(models, manifest, CONFIG, mixed_precision="bf16")
    assert all(moved(result.lora, step) for step in range(4))
    assert [moved(result.rows, step) for step in range(4)] == [True, True, False, False]
    assert {value.dtype for value in result.lora[-1].values()} == {torch.float32}
    full_precision = Run(load_tiny_sdxl(tiny_sdxl_dir), manifest, CONFIG).losses
    assert result.losses == pytest.approx(full_precision, rel=0.02)


def test_a_caption_without_the_trigger_trains_no_embedding(run: Callable[..., Run]):
    result = run(caption="a photo of a red ball")
    # weight decay alone: 1e-2 * 1e-3 a step
    torch.testing.assert_close(result.rows[0], result.rows[-1], rtol=1e-4, atol=0)


def test_gradient_accumulation_takes_as_many_micro_batches_a_step(run: Callable[..., Run]):
    result = run(gradient_accumulation_steps=3, train_batch_size=1, num_train_epochs=2)
    assert len(result.losses) == 2


def test_a_refactoring_keeps_the_losses(run: Callable[..., Run]):
    # renewed only by a change of the numerics, with the reason in its commit
    golden = [1.2386329, 1.1366348, 1.0441169, 1.1428546]
    assert run().losses == pytest.approx(golden, rel=1e-4)
