import base64
import io
import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.manifest import Manifest
from sdxl.weights.archive import load_weights
from trainer.config import TrainConfig
from trainer.report import TrainReport, write_report
from trainer.run import TrainingResult, run_training

CONFIG = TrainConfig(
    seed=5, resolution=64, max_train_steps=2, train_batch_size=1, lora_rank=2, lr_warmup_steps=0
)


@pytest.fixture
def train(tiny_sdxl_dir: Path, make_manifest: Callable[..., Manifest], tmp_path: Path):
    def run(name: str = "out", **changes: object) -> TrainingResult:
        config = replace(CONFIG, **changes)
        (tmp_path / name).mkdir()
        manifest = make_manifest(2, size=(64, 64), caption='a "photo" of TOK, <b>')
        settings = {"caption_prefix": "a photo of TOK, ", **asdict(config)}
        return run_training(manifest, tiny_sdxl_dir, "tiny", config, settings, tmp_path / name)

    return run


def members(result: TrainingResult) -> dict[str, bytes]:
    with tarfile.open(result.weights) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # pyright: ignore[reportOptionalMemberAccess]


def test_the_archive_holds_the_weights_and_how_they_were_made(train: Callable[..., TrainingResult]):
    result = train()
    assert set(members(result)) == {
        "lora.safetensors",
        "embeddings.pti",
        "special_params.json",
        "training.json",
        "captions.csv",
        "webui/TOK.safetensors",
        "webui/TOK_embedding.safetensors",
    }
    record = json.loads(members(result)["training.json"])
    assert record["base_model"] == "tiny"
    assert record["seed"] == 5
    assert record["settings"]["caption_prefix"] == "a photo of TOK, "
    assert len(record["losses"]) == 2
    assert record["packages"]["diffusers"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    train: Callable[..., TrainingResult],
):
    first, again, other = train("a"), train("b"), train("c", seed=6)
    assert first.weights.read_bytes() == again.weights.read_bytes()
    assert members(first)["lora.safetensors"] != members(other)["lora.safetensors"]


@pytest.mark.parametrize(
    "change",
    [
        {"ti_lr": 1e-2},
        {"lora_lr": 1e-2},
        {"lora_rank": 4},
        {"lora_target": "all"},
        {"ti_train_fraction": 1.0},
        {"lr_warmup_steps": 5},
        {"lr_scheduler": "linear"},
        {"train_batch_size": 2},
        {"max_train_steps": 3},
        {"num_train_epochs": 1, "train_batch_size": 2},
        {"max_grad_norm": 1e-9},
        {"num_placeholder_tokens": 3},
        {"gradient_accumulation_steps": 2},
        {"horizontal_flip": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_of_the_training_acts_on_the_weights(
    train: Callable[..., TrainingResult], change: dict
):
    before, after = train("before"), train("after", **change)
    names = ("lora.safetensors", "embeddings.pti")
    assert [members(before)[n] for n in names] != [members(after)[n] for n in names]


def test_checkpoints_are_in_the_archive_and_can_be_loaded(
    train: Callable[..., TrainingResult], tmp_path: Path
):
    result = train(max_train_steps=5, checkpointing_steps=2)
    with tarfile.open(result.weights) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    checkpoints = tmp_path / "unpacked" / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step_000002", "step_000004"]
    early, final = load_weights(checkpoints / "step_000002"), load_weights(result.weights)
    assert early.lora.keys() == final.lora.keys()
    assert any((early.lora[key] != final.lora[key]).any() for key in final.lora)


def test_the_methods_write_what_they_trained(train: Callable[..., TrainingResult]):
    inversion = members(train("ti", method="textual_inversion"))
    assert {"lora.safetensors", "unet.safetensors"}.isdisjoint(inversion)
    full = members(train("full", method="full"))
    assert "unet.safetensors" in full
    assert "lora.safetensors" not in full


def test_the_report_is_one_file_with_pictures_captions_losses_and_settings(
    train: Callable[..., TrainingResult],
):
    page = train().report.read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * 4 + 2  # before, after, pictures
    for part in ("Training of TOK", "seed 3", "<polyline", "pivot: step 1", "captions.csv"):
        assert part in page
    assert "a &quot;photo&quot; of TOK, &lt;b&gt;" in page
    assert "picture 1.jpg" in page
    assert "<th>lora_rank</th>" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_log_opens_with_what_will_be_trained(
    train: Callable[..., TrainingResult], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO"):
        train()
    assert "2 images, 2 steps of 1 (lora), TOK as 2 vectors until step 1, seed 5" in caplog.text


def test_a_resolution_far_from_the_bases_own_is_warned_of(
    train: Callable[..., TrainingResult], caplog: pytest.LogCaptureFixture,
    make_manifest: Callable[..., Manifest], tiny_sdxl_dir: Path, tmp_path: Path,
):  # fmt: skip
    train()
    assert "far from" not in caplog.text  # 64 px on a base of 32
    config = replace(CONFIG, resolution=128)
    (tmp_path / "large").mkdir()
    manifest = make_manifest(1, size=(128, 128))
    run_training(manifest, tiny_sdxl_dir, "tiny", config, {}, tmp_path / "large")
    assert "resolution 128 is far from the 32 px" in caplog.text


def test_progress_is_in_the_form_that_replicates_client_parses(
    train: Callable[..., TrainingResult], capfd: pytest.CaptureFixture[str]
):
    train(max_train_steps=3)
    lines = capfd.readouterr().err.splitlines()
    # replicate.prediction.Progress
    pattern = re.compile(r"^\s*(?P<percentage>\d+)%\s*\|.+?\|\s*(?P<current>\d+)\/(?P<total>\d+)")
    parsed = [match.groups() for match in map(pattern.match, lines) if match]
    assert parsed[-1] == ("100", "3", "3")
    assert any("loss=" in line and "images/s" in line for line in lines)


def test_the_report_lays_the_mask_over_the_picture(
    make_manifest: Callable[..., Manifest], tmp_path: Path
):
    def page(mask: bool) -> str:
        manifest = make_manifest(1, size=(64, 64))
        if mask:
            Image.new("L", (64, 64), 0).save(manifest.directory / "mask.png")
            example = replace(manifest.examples[0], mask_path="mask.png", notes=("masked",))
            manifest = replace(manifest, examples=(example,))
        report = TrainReport(
            manifest=manifest, trigger="TOK", base_model="tiny", settings={}, losses=[0.1],
            pivot_step=1, previews=(), seconds={}, archive_bytes=1,
        )  # fmt: skip
        write_report(report, tmp_path / "report.html")
        return (tmp_path / "report.html").read_text()

    plain, masked = page(mask=False), page(mask=True)
    assert "masked" in masked
    pictures = [re.search('base64,([^"]+)', text)[1] for text in (plain, masked)]  # pyright: ignore[reportOptionalSubscript]
    reds = [np.asarray(Image.open(io.BytesIO(base64.b64decode(p))))[..., 0] for p in pictures]
    assert reds[1].mean() > reds[0].mean() + 20
