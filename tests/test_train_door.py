"""What train.py does around a training: called as Cog calls it, without its server."""

import inspect
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cog import Path as CogPath
from cog import Secret
from huggingface_hub import ModelCard
from PIL import Image

from sdxl.weights.archive import load_weights, save_weights
from sdxl.weights.writing import write_weights
from tests.hub import TOKEN, Hub, hub  # noqa: F401  # a fixture
from tests.trainer.test_continued import earlier_weights
from train import TrainingOutput, train
from trainer.continued import shown_name

pytestmark = pytest.mark.filterwarnings(  # of huggingface_hub's own upload
    "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"
)
Call = Callable[..., TrainingOutput]


@pytest.fixture
def outputs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the door makes its folders."""
    (tmp_path / "outputs").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "outputs"))
    return tmp_path / "outputs"


@pytest.fixture
def call(tiny_sdxl_dir: Path, outputs_dir: Path) -> Call:  # noqa: ARG001
    """Calls the door with its own defaults, but for a training that is as small as can be."""
    small: dict[str, Any] = {
        "base_model": str(tiny_sdxl_dir), "resolution": 64, "max_train_steps": 1,
        "train_batch_size": 1, "lora_rank": 4, "caption_model": "none", "upscale": False,
        "sample_prompts": "TOK on the beach",
    }  # fmt: skip
    defaults = {n: p.default.default for n, p in inspect.signature(train).parameters.items()}
    return lambda **inputs: train(**{**defaults, **small, **inputs})


@pytest.fixture
def pictures(tmp_path: Path) -> CogPath:
    with (
        zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive,
        archive.open("1.png", "w") as f,
    ):
        Image.new("RGB", (64, 64), "red").save(f, "PNG")
    return CogPath(tmp_path / "pictures.zip")


def record(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:
        member = tar.extractfile("training.json")
        assert member is not None
        return json.load(member)


def test_a_training_goes_on_from_another_and_is_pushed(
    hub: Hub,  # noqa: F811
    call: Call,
    pictures: CogPath,
    tiny_sdxl_dir: Path,
    outputs_dir: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    save_weights(earlier_weights(tiny_sdxl_dir), tmp_path / "earlier.tar")
    output = call(
        input_images=pictures,
        init_weights=str(tmp_path / "earlier.tar"),
        hf_repo_id="me/toys",
        hf_token=Secret(TOKEN),
    )
    settings = record(output.weights)["settings"]
    assert settings["init_weights"] == str(tmp_path / "earlier.tar")
    assert "hf_token" not in settings
    assert load_weights(output.weights).text_encoder_lora  # the earlier one's, which stays
    assert hub.files["trained_model.tar"] == output.weights.read_bytes()
    card = ModelCard(hub.files["README.md"].decode())
    assert [shown["text"] for shown in card.data.widget] == ["TOK on the beach"]
    assert hub.files["images/1.jpg"].startswith(b"\xff\xd8")
    written = [path.read_bytes() for path in outputs_dir.rglob("*") if path.is_file()]
    assert len(written) == 2
    assert not any(TOKEN.encode() in content for content in [*written, *hub.files.values()])
    log = capfd.readouterr().err
    assert f"Pushed to {hub.url}/me/toys" in log
    assert TOKEN not in log


def test_a_lora_of_the_web_becomes_a_model_without_pictures_whatever_the_hub_says(
    hub: Hub,  # noqa: F811
    call: Call,
    tiny_sdxl_dir: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    write_weights(earlier_weights(tiny_sdxl_dir, rank=9), tmp_path / "it.safetensors", "bundle")
    hub.refuses_commits = True
    output = call(
        skip_training=True,
        init_weights=str(tmp_path / "it.safetensors"),
        token_string="CAP",
        hf_repo_id="me/toys",
        hf_token=Secret(TOKEN),
    )
    assert output.report is None
    weights = load_weights(output.weights)
    assert [concept.trigger for concept in weights.concepts] == ["CAP"]
    assert weights.base_model == str(tiny_sdxl_dir)
    log = capfd.readouterr().err
    assert "hf_repo_id: could not push to me/toys: 403 Forbidden: You are over your storage" in log
    assert "HF_TOKEN=... python -m sdxl.weights push trained_model.tar --repo me/toys" in log
    assert TOKEN not in log


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_images": None}, "input_images is missing: give a zip or tar archive"),
        ({"skip_training": True}, "skip_training makes an archive of weights that there are"),
        ({"init_weights": "no such file.tar"}, "^init_weights: "),
        ({"init_weights": "PICTURES"}, "^init_weights: the weights pictures.zip are a pickle"),
        ({"hf_token": Secret(TOKEN)}, "hf_token is for a push: give hf_repo_id too"),
        ({"hf_repo_id": "me/toys"}, "the repository me/toys needs a token"),
        ({"hf_repo_id": "toys", "hf_token": Secret(TOKEN)}, "hf_repo_id must be owner/name"),
        (
            {"hf_repo_id": "me/toys", "hf_token": Secret("hf_wrong")},
            "hf_token: cannot write to me/toys: Invalid user token",
        ),
    ],
    ids=[
        *("no pictures", "nothing to skip for", "no file", "no weights", "no repository"),
        *("no token", "no owner", "wrong token"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    call: Call, pictures: CogPath, outputs_dir: Path, inputs: dict[str, Any], message: str
):
    if inputs.get("init_weights") == "PICTURES":
        inputs = {"init_weights": str(pictures)}
    call_inputs = {"input_images": pictures, "base_model": "owner/not-there", **inputs}
    with pytest.raises(ValueError, match=message):
        call(**call_inputs)
    assert not list(outputs_dir.iterdir())


def test_a_password_in_the_address_of_weights_is_not_recorded():
    address = "https://me:secret@example.com/lora.safetensors?token=secret"
    assert shown_name(address) == "https://example.com/lora.safetensors"
    assert shown_name("owner/name") == "owner/name"
