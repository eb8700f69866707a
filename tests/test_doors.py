"""Both doors through Cog's real HTTP server, as `script/train` and `script/predict` run them."""

import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from script.local_cog import client
from script.local_cog.console import Console
from script.local_cog.errors import RunError
from script.local_cog.inputs import to_request
from script.local_cog.server import CogServer

ROOT = Path(__file__).parent.parent

# every input of replicate/cog-sdxl's train.py, and the base model
COG_SDXL_CALL = {
    "seed": "0",
    "resolution": "64",
    "train_batch_size": "2",
    "num_train_epochs": "4000",
    "max_train_steps": "2",
    "is_lora": "true",
    "unet_learning_rate": "1e-6",
    "ti_lr": "3e-4",
    "lora_lr": "1e-4",
    "lora_rank": "4",
    "lr_scheduler": "constant",
    "lr_warmup_steps": "100",
    "token_string": "TOK",
    "caption_prefix": "a photo of TOK, ",
    "crop_based_on_salience": "true",
    "use_face_detection_instead": "false",
    "clipseg_temperature": "1.0",
    "verbose": "true",
    "checkpointing_steps": "999999",
    "input_images_filetype": "infer",
}


def run(mode: str, inputs: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "script.local_cog", mode, *arguments]
    for name, value in inputs.items():
        command += ["-i", f"{name}={value}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (90, 120, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "picture.png")
            archive.write(folder / "picture.png", f"set/picture {i}.png")
    return folder / "pictures.zip"


@pytest.fixture(scope="module")
def trained(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    weights = tmp_path_factory.mktemp("trained") / "weights.tar"
    inputs = {**COG_SDXL_CALL, "input_images": f"@{pictures}", "base_model": "pocket"}
    return weights, run("train", inputs, "-o", str(weights))


def test_a_cog_sdxl_call_trains_through_the_real_server(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
):
    weights, result = trained
    assert result.returncode == 0, result.stderr
    with tarfile.open(weights) as archive:
        assert {"lora.safetensors", "embeddings.pti", "special_params.json"} <= set(
            archive.getnames()
        )
    assert weights.with_name("weights_report.html").read_text().startswith("<!doctype html>")


def test_the_log_says_what_was_found_and_with_which_settings(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
):
    log = trained[1].stderr
    assert "3 images, 2 steps of 2 (lora)" in log
    assert "seed=0" in log
    assert "Traceback" not in log


def test_the_weights_make_pictures_through_the_real_server(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
):
    inputs = {
        "prompt": "a photo of TOK on the beach",
        "num_outputs": "2",
        "num_inference_steps": "2",
        "seed": "0",
        "disable_safety_checker": "true",
    }
    result = run("predict", inputs, "-w", str(trained[0]), "-o", str(tmp_path))
    assert result.returncode == 0, result.stderr
    sizes = []
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            sizes.append(picture.size)
    assert sizes == [(128, 128)] * 2  # the base model's own size: the archive says which base
    assert "Seeds: 0, 1" in result.stderr


def test_the_web_uis_file_alone_makes_pictures_too(
    trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
):
    with tarfile.open(trained[0]) as archive:
        archive.extract("webui/TOK.safetensors", tmp_path, filter="data")
    inputs = {"prompt": "a toy", "num_inference_steps": "1", "disable_safety_checker": "true"}
    file = tmp_path / "webui" / "TOK.safetensors"
    result = run("predict", inputs, "-w", str(file), "-o", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    assert "Base model pocket" in result.stderr  # the file says which
    with Image.open(next((tmp_path / "out").iterdir())) as picture:
        assert picture.size == (128, 128)


def becomes_ready(server: CogServer) -> bool:
    """The server answers a moment before its worker is free."""
    deadline = time.monotonic() + 10
    while server.health()["status"] == "BUSY" and time.monotonic() < deadline:
        time.sleep(0.02)
    return server.health()["status"] == "READY"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"base_model": "TINY", "upscale": False}, "Ways out: set caption_model=none"),
        ({"max_train_steps": 0}, "max_train_steps"),
        ({"resolution": 100}, "resolution must be a multiple of 8, got 100"),
        ({"base_model": "no such model"}, "base_model 'no such model' was not found"),
        ({"is_lora": False, "method": "textual_inversion"}, "is_lora=False asks for the whole"),
        ({"optimizer": "prodigy"}, "Set ti_lr=1, lora_lr=1, or take optimizer=adamw"),
        ({"class_images": "PICTURES"}, "class_images needs a class_prompt"),
        ({"wandb_api_key": "geheim"}, "wandb_api_key: Weights & Biases did not open a run"),
    ],
    ids=[
        *("captioner", "schema", "config", "download", "contradiction", "prodigy"),
        *("class images", "wandb"),
    ],
)
def test_a_bad_value_fails_with_a_sentence_that_names_it(
    train_server: CogServer,
    pictures: Path,
    tiny_sdxl_dir: Path,
    capsys: pytest.CaptureFixture[str],
    inputs: dict[str, Any],
    message: str,
):
    call = {"input_images": pictures, "base_model": "pocket", **inputs}
    call["base_model"] = str(call["base_model"]).replace("TINY", str(tiny_sdxl_dir))
    if "class_images" in call:
        call["class_images"] = pictures
    request = to_request(call, train_server.files.offer, train_server.folder)
    with pytest.raises(RunError, match=re.escape(message)) as error:
        client.run(train_server, request, Console())
    assert "geheim" not in f"{error.value}{capsys.readouterr()}"
    assert becomes_ready(train_server)
    assert not list(train_server.folder.glob("sdxl-training-*"))


@pytest.fixture(scope="module")
def train_server() -> Iterator[CogServer]:
    with CogServer("train", ROOT, Console(), {"HF_HUB_OFFLINE": "1"}) as server:
        yield server


# beyond the schema and beyond our own checks, of every kind
BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "scheduler": ({"scheduler": "EULER"}, "input scheduler: "),
    "size": ({"width": 4096}, "input width: 4096 is greater than the maximum of 2048"),
    "strength": ({"prompt_strength": 1.5}, "input prompt_strength: "),
    "mask alone": ({"mask": "PICTURE"}, "mask says what of image to repaint, but there is no"),
    "broken image": ({"image": "TEXT"}, "image cannot be used: it is not a picture"),
    "black mask": ({"image": "PICTURE", "mask": "BLACK"}, "mask has nothing to repaint"),
    "unreachable": ({"replicate_weights": "http://127.0.0.1:9/w.tar"}, "127.0.0.1 cannot be reac"),
    "no weights": ({"replicate_weights": "README.md"}, "replicate_weights README.md: "),
    "scale": ({"extra_lora": "README.md:3"}, "the scale of README.md must be from -1 to 2, got 3"),
    "wrong model": ({"replicate_weights": "FLUX"}, "replicate_weights flux.safetensors: "),
    "weight": ({"prompt": "(red:9) ball"}, "prompt must have weights from 0 to 2, got 9"),
    "no checker": ({"disable_safety_checker": False}, "disable_safety_checker=true makes pictures"),
    "shape": ({"aspect_ratio": "1:1", "width": 64}, "leave width and height out"),
}


@pytest.fixture(scope="module")
def predict_server() -> Iterator[CogServer]:
    environment = {"BASE_MODEL": "pocket", "HF_HUB_OFFLINE": "1"}
    with CogServer("predict", ROOT, Console(), environment) as server:
        yield server


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("uploads")
    Image.new("RGB", (128, 128), "orange").save(folder / "picture.png")
    Image.new("L", (128, 128)).save(folder / "black.png")
    (folder / "text.png").write_text("no picture")
    block = "transformer.single_transformer_blocks.0.attn.to_q"
    matrices = {
        f"{block}.lora_A.weight": torch.zeros(4, 64),
        f"{block}.lora_B.weight": torch.zeros(64, 4),
    }
    save_file(matrices, folder / "flux.safetensors")
    names = {"PICTURE": "picture.png", "BLACK": "black.png", "TEXT": "text.png"}
    return {key: folder / name for key, name in {**names, "FLUX": "flux.safetensors"}.items()}


def predict(server: CogServer, **inputs: Any) -> list[str]:
    request = to_request(inputs, server.files.offer, server.folder)
    always = {"num_inference_steps": 2, "disable_safety_checker": True, "seed": 1}
    return client.run(server, {**always, **request}, Console())


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_answered_at_once_and_the_server_stays_ready(
    predict_server: CogServer, uploads: dict[str, Path], name: str
):
    inputs, message = BAD_REQUESTS[name]
    values = {key: uploads.get(str(value), value) for key, value in inputs.items()}
    if name == "wrong model":
        values = {"replicate_weights": str(uploads["FLUX"])}
    started = time.monotonic()
    with pytest.raises(RunError, match=re.escape(message)):
        predict(predict_server, **{"prompt": "a red ball", **values})
    assert time.monotonic() - started < 20  # seconds, on a busy machine
    assert becomes_ready(predict_server)


def test_the_server_answers_as_before_after_all_of_that(predict_server: CogServer):
    first = predict(predict_server, prompt="a red ball")
    with pytest.raises(RunError):
        predict(predict_server, prompt="a red ball", extra_lora="README.md")
    assert predict(predict_server, prompt="a red ball") == first
