import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from preprocess.manifest import Manifest
from sdxl.downloads import BaseModelFiles
from sdxl.weights.archive import load_weights
from trainer.config import TrainConfig
from trainer.run import TrainingResult, run_training

CONFIG = TrainConfig(
    seed=5, resolution=64, max_train_steps=2, train_batch_size=1, lora_rank=2, lr_warmup_steps=0
)


def base(directory: Path) -> BaseModelFiles:
    return BaseModelFiles(name="tiny", weights=directory, configs=directory)


@pytest.fixture
def train(tiny_sdxl_dir: Path, make_manifest: Callable[..., Manifest], tmp_path: Path):
    def run(name: str = "out", **changes: object) -> TrainingResult:
        config = replace(CONFIG, **changes)
        (tmp_path / name).mkdir()
        manifest = make_manifest(2, size=(64, 64), caption='a "photo" of TOK, <b>')
        settings = {"caption_prefix": "a photo of TOK, ", **asdict(config)}
        return run_training(manifest, None, base(tiny_sdxl_dir), config, settings, tmp_path / name)

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
        "tensorboard/events.out.tfevents.0.training",
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


@pytest.fixture(scope="module")
def baselines() -> dict[str, dict[str, bytes]]:
    """Archives without the change, by the settings beside it."""
    return {}


RESTARTS = {"lr_scheduler": "cosine_with_restarts", "max_train_steps": 4}
CHANGES: list[tuple[dict, dict]] = [
    ({"ti_lr": 1e-2}, {}),
    ({"lora_lr": 1e-2}, {}),
    ({"lora_rank": 4}, {}),
    ({"lora_target": "all"}, {}),
    ({"lora_alpha": 1.0}, {}),
    ({"lora_dropout": 0.5}, {}),
    ({"text_encoder_lr": 1e-3}, {}),
    ({"method": "dora"}, {}),
    ({"ti_train_fraction": 1.0}, {}),
    ({"ti_init": "red"}, {}),
    ({"token_map": "TOK:3"}, {}),
    ({"optimizer": "prodigy"}, {"ti_lr": 1.0, "lora_lr": 1.0}),
    ({"lr_warmup_steps": 5}, {}),
    ({"lr_scheduler": "linear"}, {}),
    ({"lr_scheduler": "cosine"}, {}),
    ({"lr_scheduler": "cosine_with_restarts"}, {"max_train_steps": 4}),
    ({"lr_num_cycles": 2}, RESTARTS),
    ({"train_batch_size": 2}, {}),
    ({"gradient_accumulation_steps": 2}, {}),
    ({"max_train_steps": 3}, {}),
    ({"num_train_epochs": 1}, {"train_batch_size": 2}),
    ({"max_grad_norm": 1e-9}, {}),
    ({"snr_gamma": 0.0}, {"train_batch_size": 8}),
    ({"noise_offset": 0.1}, {}),
    ({"caption_dropout": 0.9}, {}),
    ({"horizontal_flip": True}, {}),
    ({"mixed_precision": "bf16"}, {}),
    ({"class_prompt": "a photo of a ball"}, {"num_class_images": 1}),
    ({"num_class_images": 2}, {"class_prompt": "a photo of a ball", "num_class_images": 1}),
    ({"prior_loss_weight": 2.0}, {"class_prompt": "a photo of a ball", "num_class_images": 1}),
]
# settings whose effect other tests show
SHOWN_ELSEWHERE = {
    *("seed", "resolution", "unet_learning_rate", "token_string", "checkpointing_steps"),
    *("gradient_checkpointing", "sample_prompts", "sample_every", "wandb_project"),
    *("lora_max_mb", "export"),
}


def test_every_setting_has_a_test_of_its_effect():
    changed = {next(iter(change)) for change, _ in CHANGES}
    assert changed | SHOWN_ELSEWHERE == {field.name for field in fields(TrainConfig)}
    assert not changed & SHOWN_ELSEWHERE


@pytest.mark.parametrize(
    ("change", "beside"),
    CHANGES,
    ids=lambda settings: "-".join(f"{k}={v}" for k, v in settings.items()) or "alone",
)
def test_every_setting_of_the_training_acts_on_the_weights(
    train: Callable[..., TrainingResult],
    baselines: dict[str, dict[str, bytes]],
    change: dict,
    beside: dict,
):
    beside = {"sample_prompts": "TOK", **beside}  # one picture is enough here
    if str(beside) not in baselines:
        baselines[str(beside)] = members(train("before", **beside))
    before, after = baselines[str(beside)], members(train("after", **{**beside, **change}))
    names = ("lora.safetensors", "embeddings.pti")
    assert [before[name] for name in names] != [after[name] for name in names]


@pytest.mark.parametrize(
    "change",
    [{"gradient_checkpointing": "on"}, {"sample_every": 1}, {"checkpointing_steps": 1}],
    ids=lambda change: next(iter(change)),
)
def test_what_only_looks_on_or_saves_memory_leaves_the_weights_alone(
    train: Callable[..., TrainingResult], change: dict
):
    # dropout draws from the generators that a look could disturb
    beside = {"lora_dropout": 0.3, "max_train_steps": 4, "sample_prompts": "TOK"}
    before, after = train("before", **beside), train("after", **beside, **change)
    assert members(before)["lora.safetensors"] == members(after)["lora.safetensors"]


def test_checkpoints_are_in_the_archive_and_can_be_loaded(
    train: Callable[..., TrainingResult], tmp_path: Path
):
    result = train(max_train_steps=5, checkpointing_steps=2)
    with tarfile.open(result.weights) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    checkpoints = tmp_path / "unpacked" / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step_000002", "step_000004"]
    early, final = load_weights(checkpoints / "step_000002"), load_weights(result.weights)
    assert (early.pooling, early.base_model) == (final.pooling, final.base_model)
    assert early.lora.keys() == final.lora.keys()
    assert any((early.lora[key] != final.lora[key]).any() for key in final.lora)


def test_more_formats_are_in_the_archive_if_asked_for(train: Callable[..., TrainingResult]):
    plain = set(members(train("plain", sample_prompts="TOK")))
    both = set(members(train("both", sample_prompts="TOK", export="diffusers, bundle")))
    assert both - plain == {
        "diffusers/pytorch_lora_weights.safetensors",
        "bundle/TOK.safetensors",
    }


def test_a_lora_is_made_as_small_as_asked_for(
    train: Callable[..., TrainingResult], caplog: pytest.LogCaptureFixture
):
    large = members(train("large", lora_rank=8, sample_prompts="TOK"))
    limit = len(large["webui/TOK.safetensors"]) * 0.75
    with caplog.at_level("INFO"):
        small = members(train("small", lora_rank=8, sample_prompts="TOK", lora_max_mb=limit / 1e6))
    assert 0.8 * limit < len(small["webui/TOK.safetensors"]) <= limit
    assert len(small["lora.safetensors"]) < len(large["lora.safetensors"])
    assert "pairs of rows and columns are kept" in caplog.text


def test_a_size_that_no_lora_has_is_refused_before_the_training(
    train: Callable[..., TrainingResult], capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(ValueError, match=r"lora_max_mb=1e-05 is too small: no file of these"):
        train(lora_max_mb=1e-5, sample_prompts="TOK")
    assert "1/2" not in capfd.readouterr().err


def test_the_report_shows_the_lora_as_it_was_made_small(train: Callable[..., TrainingResult]):
    settings = {"lora_lr": 1.0, "sample_prompts": "TOK", "lora_rank": 8, "text_encoder_lr": 1e-3}
    large = train("large", **settings)
    limit = len(members(large)["webui/TOK.safetensors"]) * 0.2
    small = train("small", **settings, lora_max_mb=limit / 1e6)

    def shown(result: TrainingResult) -> list[str]:
        return re.findall('base64,([^"]+)', result.report.read_text())

    before, after = zip(shown(large)[:2], shown(small)[:2], strict=True)
    assert before[0] == before[1]
    assert after[0] != after[1]


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


def test_a_training_that_diverges_fails_with_its_rates(train: Callable[..., TrainingResult]):
    with pytest.raises(ValueError, match=r"the loss of step \d+ is not a number.*unet 1e\+20"):
        train(method="full", unet_learning_rate=1e20, max_grad_norm=0.0, max_train_steps=4)


def test_the_course_of_the_pictures_is_in_the_report(train: Callable[..., TrainingResult]):
    result = train(max_train_steps=5, sample_every=2, sample_prompts="TOK | a ball")
    page = result.report.read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * 4 + 2  # base, 2, 4, final; the pictures
    assert "step 2" in page
    assert "a ball" in page


def test_several_concepts_are_named_in_log_report_and_archive(
    train: Callable[..., TrainingResult], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO"):
        result = train(token_map="TOK:1,photo:3")
    assert "TOK as 1 vectors, photo as 3 vectors" in caplog.text
    assert json.loads(members(result)["special_params.json"]) == {
        "TOK": "<s0>",
        "photo": "<s1><s2><s3>",
    }
    assert {"webui/TOK_embedding.safetensors", "webui/photo_embedding.safetensors"} <= set(
        members(result)
    )
    assert "photo" in result.report.read_text()


def test_class_pictures_are_made_with_progress_and_shown(
    train: Callable[..., TrainingResult], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO"):
        result = train(class_prompt="a photo of a ball", num_class_images=5)
    assert "Class picture 4 of 5" in caplog.text
    assert "Class picture 5 of 5" in caplog.text
    assert "a photo of a ball" in result.report.read_text()


def test_class_pictures_of_the_users_own_are_trained_instead(
    train: Callable[..., TrainingResult], make_manifest: Callable[..., Manifest],
    tiny_sdxl_dir: Path, tmp_path: Path,
):  # fmt: skip
    prompt = "a photo of a ball"
    made = train("made", class_prompt=prompt, num_class_images=2)
    own = make_manifest(2, size=(64, 64))
    config = replace(CONFIG, class_prompt=prompt)
    (tmp_path / "own").mkdir()
    result = run_training(own, own, base(tiny_sdxl_dir), config, {}, tmp_path / "own")
    names = ("lora.safetensors", "embeddings.pti")
    assert [members(made)[n] for n in names] != [members(result)[n] for n in names]


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
    run_training(manifest, None, base(tiny_sdxl_dir), config, {}, tmp_path / "large")
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
