"""The door to prediction in this process; tests/test_doors.py has it behind the server."""

import inspect
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.request import AspectRatio, GenerationRequest, Refine
from inference.schedulers import SCHEDULERS
from inference.sizes import ASPECT_RATIOS
from predict import Predictor
from sdxl.weights.archive import save_weights
from sdxl.weights.writing import write_weights
from tests.conftest import logging_restored
from tests.inference.cancellation import CancelAt
from tests.inference.serving import make_weights
from tests.tiny_sdxl import load_tiny_sdxl

BASE = {
    "prompt": "a photo of TOK on the beach", "width": 64, "height": 64, "num_inference_steps": 2,
    "seed": 3, "disable_safety_checker": True, "lora_scale": 1.0,
}  # fmt: skip


def call(predictor: Predictor, **inputs: Any) -> list[Path]:
    """As Cog does: inputs that are left out have their defaults."""
    parameters = inspect.signature(predictor.predict).parameters
    defaults = {name: getattr(p.default, "default", None) for name, p in parameters.items()}
    return [Path(path) for path in predictor.predict(**{**defaults, **BASE, **inputs})]


@contextmanager
def served(weights: str | None = None) -> Iterator[Predictor]:
    predictor = Predictor()
    with logging_restored():  # a fixture of the module is outside of `own_logging`
        predictor.setup(weights)
    yield predictor
    if predictor.out_dir:
        predictor.out_dir.cleanup()


def fresh(weights: str, inputs: dict[str, Any]) -> bytes:
    """In a process of its own: see `in_fresh_processes`."""
    with served(weights) as predictor:
        return call(predictor, **inputs)[0].read_bytes()


@pytest.fixture(scope="module")
def folder(tiny_sdxl_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained weights of several kinds, broken ones, a picture and a mask."""
    folder = tmp_path_factory.mktemp("served")
    models = load_tiny_sdxl(tiny_sdxl_dir)
    save_weights(make_weights(models), folder / "baked.tar")
    save_weights(make_weights(models, seed=1), folder / "same layers.tar")
    other = make_weights(models, seed=2, target="all", rank=20, trigger="HAT")
    write_weights(other, folder / "kohya.safetensors", "webui")
    unet = {k: v + 0.1 for k, v in models.unet.state_dict().items() if "attn" in k}
    save_weights(replace(make_weights(models, seed=3), lora={}, unet=unet), folder / "unet.tar")
    (folder / "broken.tar").write_bytes((folder / "baked.tar").read_bytes()[:3000])
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    mask.save(folder / "mask.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def tiny_base(tiny_sdxl_dir: Path) -> Iterator[None]:
    os.environ["BASE_MODEL"] = os.environ["REFINER_MODEL"] = str(tiny_sdxl_dir)
    yield
    del os.environ["BASE_MODEL"], os.environ["REFINER_MODEL"]


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Iterator[Predictor]:
    """One for all tests, as in production."""
    with served(str(folder / "baked.tar")) as predictor:
        yield predictor


Requests = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def requests(folder: Path) -> Requests:
    image = {"image": folder / "picture.png", "prompt_strength": 0.6}
    return {
        "baked": {},
        "same layers": {"replicate_weights": str(folder / "same layers.tar")},
        "other layers": {"replicate_weights": str(folder / "kohya.safetensors")},
        "whole unet": {"replicate_weights": str(folder / "unet.tar")},
        "two": {"extra_lora": f"{folder / 'kohya.safetensors'}:-0.5"},
        "inpainting": {**image, "mask": folder / "mask.png"},
        "large refined": {"width": 96, "refine": "expert_ensemble_refiner"},
    }


@pytest.fixture(scope="module")
def faults(folder: Path) -> Requests:
    return {
        "unreachable": {"replicate_weights": "http://127.0.0.1:9/weights.tar"},
        "broken": {"replicate_weights": str(folder / "broken.tar")},
        "broken extra": {"extra_lora": str(folder / "broken.tar")},
        "unknown scheduler": {"scheduler": "EULER"},
        "mask alone": {"mask": folder / "mask.png"},
    }


@pytest.fixture(scope="module")
def in_fresh_processes(folder: Path, requests: Requests) -> dict[str, bytes]:
    """What a process answers that has just started and does nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_predict"])
    with context.Pool(2, maxtasksperchild=1) as pool:
        calls = [(str(folder / "baked.tar"), inputs) for inputs in requests.values()]
        return dict(zip(requests, pool.starmap(fresh, calls, chunksize=1), strict=True))


NAMES = (
    "baked", "same layers", "other layers", "whole unet", "two", "inpainting", "large refined",
)  # fmt: skip
FAULTS = ("unreachable", "broken", "broken extra", "unknown scheduler", "mask alone")
EVENT = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(FAULTS),
    st.tuples(st.sampled_from(NAMES), st.sampled_from((10, 100, 1000, 3000, 10_000, 30_000))),
)


@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(EVENT, min_size=2, max_size=6), st.sampled_from(NAMES))
def test_whatever_happened_before_a_request_answers_as_a_fresh_process(
    predictor: Predictor,
    requests: Requests,
    faults: Requests,
    in_fresh_processes: dict[str, bytes],
    events: list[str | tuple[str, int]],
    last: str,
):
    for event in [*events, last]:
        if isinstance(event, tuple):
            name, number = event
            with CancelAt(number):
                call(predictor, **requests[name])
        elif event in faults:
            with pytest.raises(ValueError, match=r"\w"):
                call(predictor, **faults[event])
        else:
            answer = call(predictor, **requests[event])[0].read_bytes()
            assert answer == in_fresh_processes[event], (events, event)


def test_the_kinds_of_requests_differ(in_fresh_processes: dict[str, bytes]):
    assert len(set(in_fresh_processes.values())) == len(in_fresh_processes)
    assert set(in_fresh_processes) == set(NAMES)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unreachable", r"replicate_weights http://127\.0\.0\.1:9/weights\.tar: .*reached"),
        ("broken", r"replicate_weights broken\.tar: "),
        ("broken extra", r"extra_lora broken\.tar: "),
        ("unknown scheduler", r"scheduler must be one of DDIM"),
        ("mask alone", r"mask says what of image to repaint, but there is no image"),
    ],
)
def test_a_bad_request_is_answered_with_a_sentence_that_names_the_input(
    predictor: Predictor, faults: Requests, fault: str, message: str
):
    with pytest.raises(ValueError, match=message):
        call(predictor, **faults[fault])


def choices(name: str) -> tuple[str, ...]:
    return tuple(inspect.signature(Predictor.predict).parameters[name].default.choices)


def test_the_choices_of_the_door_are_those_of_the_request():
    assert choices("scheduler") == tuple(SCHEDULERS)
    assert choices("aspect_ratio") == get_args(AspectRatio)
    assert set(choices("aspect_ratio")) == {"custom", *ASPECT_RATIOS}
    assert choices("refine") == get_args(Refine)


def test_the_defaults_and_bounds_of_the_door_are_those_of_the_request():
    parameters = inspect.signature(Predictor.predict).parameters
    for field in fields(GenerationRequest):
        of_door = parameters[field.name].default
        if field.name not in ("prompt", "seed"):  # the door has a sample, and draws one
            assert of_door.default == field.default, field.name
        for bound, beyond in ((of_door.ge, -1), (of_door.le, 1)):
            if bound is not None and field.name != "seed":
                request = {"prompt": "", "num_inference_steps": 20, "high_noise_frac": 0.5}
                GenerationRequest(**{**request, field.name: type(bound)(bound)})
                with pytest.raises(ValueError, match=f"{field.name} must be from"):
                    GenerationRequest(**{**request, field.name: bound + beyond})


def test_pictures_come_in_the_format_that_is_asked_for_with_their_settings(predictor: Predictor):
    sizes = {}
    for fmt, quality in (("png", 90), ("webp", 90), ("webp", 20), ("jpg", 90)):
        (path,) = call(predictor, output_format=fmt, output_quality=quality)
        with Image.open(path) as picture:
            assert picture.format == {"png": "PNG", "webp": "WEBP", "jpg": "JPEG"}[fmt]
        sizes[fmt, quality] = path.stat().st_size
    assert sizes["webp", 20] < sizes["webp", 90]


def text_of(path: Path) -> str | None:
    with Image.open(path) as picture:
        return picture.info.get("parameters")


def test_every_picture_tells_its_own_seed_and_what_acted_on_it(predictor: Predictor, folder: Path):
    paths = call(predictor, num_outputs=2, extra_lora=str(folder / "kohya.safetensors"))
    texts = [text_of(path) or "" for path in paths]
    assert ["Seed: 3," in texts[0], "Seed: 4," in texts[1]] == [True, True]
    assert "baked.tar:1, kohya.safetensors:1" in texts[0]
    assert str(folder) not in texts[0]  # whose folders these are is nobody's business
    assert text_of(call(predictor, embed_metadata=False)[0]) is None


def test_the_watermark_is_put_on_unless_it_is_declined(predictor: Predictor):
    size = {"width": 256, "height": 256, "num_inference_steps": 1}
    marked, plain = (
        np.asarray(Image.open(call(predictor, apply_watermark=on, **size)[0])).astype(int)
        for on in (True, False)
    )
    assert 0 < np.abs(marked - plain).max() < 40


def test_the_pictures_of_a_request_are_gone_with_the_next(predictor: Predictor):
    (first,) = call(predictor)
    (second,) = call(predictor)
    assert not first.exists()
    assert second.exists()
    with pytest.raises(ValueError, match="width must be from 64"):
        call(predictor, width=1)
    assert not second.parent.exists()


def test_without_a_seed_one_is_drawn_and_the_log_says_which(
    predictor: Predictor, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    answers = [call(predictor, seed=None)[0].read_bytes() for _ in range(2)]
    assert answers[0] != answers[1]
    seed = int(caplog.text.rpartition("Seeds: ")[2].split()[0])
    assert call(predictor, seed=seed)[0].read_bytes() == answers[1]


def test_weights_of_another_base_model_are_warned_of(
    predictor: Predictor, tiny_sdxl_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    record = {"format_version": 1, "base_model": "juggernaut"}
    weights = make_weights(load_tiny_sdxl(tiny_sdxl_dir), record=record)
    save_weights(weights, tmp_path / "other.tar")
    call(predictor, replicate_weights=str(tmp_path / "other.tar"))
    assert "other.tar was trained on juggernaut" in caplog.text


def test_the_safety_checker_is_named_with_the_way_out_where_it_cannot_be_had(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="disable_safety_checker=true makes pictures without it"):
        call(predictor, disable_safety_checker=False)


def test_a_base_without_weights_is_served_too(folder: Path):
    with served() as base:
        plain = call(base)[0].read_bytes()
        with_weights = call(base, replicate_weights=str(folder / "baked.tar"))[0].read_bytes()
        assert plain != with_weights
        assert call(base)[0].read_bytes() == plain


def test_a_vae_can_take_the_place_of_the_bases(
    tiny_sdxl_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    models = load_tiny_sdxl(tiny_sdxl_dir)
    with torch.no_grad():
        models.vae.decoder.conv_out.bias += 0.5
    models.vae.save_pretrained(tmp_path)
    brightness = []
    for vae in ("", str(tmp_path)):
        monkeypatch.setenv("VAE_MODEL", vae)
        with served() as predictor, Image.open(call(predictor)[0]) as picture:
            brightness.append(np.asarray(picture).mean())
    assert brightness[1] > brightness[0] + 20
