"""The figures of `script/bench predict`; how large they are says nothing here."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from bench.predict import main
from bench.serving.full_size import decoding, in_a_new_process, loading, write_half_files
from bench.serving.gpu import measure_on_gpu
from bench.serving.many_requests import (
    RandomRequest,
    is_canceled,
    open_door,
    random_requests,
    sample_memory,
    write_archives,
)
from bench.serving.memory import Growth, MemorySample, PeakMemory, live_tensors
from bench.serving.swaps import measure_swaps
from bench.serving.weights import random_lora, whole_fine_tune
from bench.speed.compute import unet_forward_flop
from inference.request import GenerationRequest
from sdxl.lora import LoraSettings, add_lora, lora_state_dict
from sdxl.lora_target import LORA_TARGET_MODULES, LoraTarget
from sdxl.models import SDXLModels
from tests.tiny_sdxl import load_tiny_sdxl

REQUEST = GenerationRequest(prompt="a photo of TOK", num_inference_steps=4)
ARCHIVES = {name: f"{name}.tar" for name in ("first", "second", "third", "other", "whole")}


def samples(megabytes: list[float]) -> list[MemorySample]:
    return [
        MemorySample(num_requests=20 * i, resident_bytes=round(each * 1e6), num_tensors=5)
        for i, each in enumerate(megabytes)
    ]


def requests() -> Iterator[RandomRequest]:
    return random_requests(ARCHIVES, Path("image.png"), steps=4)


def test_growth_is_for_a_hundred_requests():
    growth = Growth.of(samples([600 + i for i in range(11)]))
    assert growth.mb_per_100 == pytest.approx(5)
    assert growth.error_mb == pytest.approx(0, abs=1e-3)
    assert growth.is_beyond_noise


def test_a_leak_is_seen_through_noise_and_noise_or_a_lone_step_is_none():
    noise = np.random.default_rng(0).standard_normal(31)
    assert not Growth.of(samples(list(600 + noise))).is_beyond_noise
    assert not Growth.of(samples([600.0] * 4 + [604.0] * 7)).is_beyond_noise
    assert Growth.of(samples(list(600 + noise + 2 * np.arange(31)))).is_beyond_noise


def test_a_tensor_counts_as_long_as_something_holds_it():
    before = live_tensors()
    held = [torch.zeros(1) for _ in range(7)]
    held[0].owner = held  # pyright: ignore[reportAttributeAccessIssue]  # a cycle
    assert live_tensors() == before + 7
    del held
    assert live_tensors() == before


def test_memory_that_is_given_back_is_in_the_peak():
    with PeakMemory() as memory:
        torch.ones(50_000_000)  # 200 MB
    assert memory.most - memory.before > 100e6


@pytest.mark.parametrize("target", get_args(LoraTarget))
def test_random_lora_has_the_layers_and_shapes_of_a_trained_one(
    tiny_models: SDXLModels, target: LoraTarget
):
    drawn = random_lora(tiny_models.unet, target, 3, torch.Generator())
    settings = LoraSettings(rank=3, alpha=3)
    add_lora(tiny_models.unet, LORA_TARGET_MODULES[target], settings, torch.Generator())
    trained = lora_state_dict(tiny_models.unet)
    assert {k: v.shape for k, v in drawn.items()} == {k: v.shape for k, v in trained.items()}


def test_a_whole_u_net_is_another_than_the_base(tiny_models: SDXLModels):
    whole = whole_fine_tune(tiny_models).weights.unet
    own = tiny_models.unet.state_dict()
    assert whole.keys() == own.keys()
    assert not any(torch.equal(whole[name], own[name]) for name in own if own[name].any())


def test_every_kind_of_swap_is_timed(tiny_models: SDXLModels):
    seconds = measure_swaps(tiny_models, tries=1, rank=2)
    assert len(seconds) == 8
    assert all(value > 0 for value in seconds.values())
    assert len(measure_swaps(tiny_models, tries=1, rank=2, with_whole=False)) == 6


def test_a_picture_counts_two_passes_a_step_at_the_models_own_size(tiny_sdxl_dir: Path):
    load = partial(load_tiny_sdxl, tiny_sdxl_dir)
    figures = measure_on_gpu(load, REQUEST, tries=1, compile_backend=None)
    assert figures.flop == 2 * 4 * unet_forward_flop(load().unet, 4, 4)
    assert figures.flop_per_second == figures.flop / figures.seconds["warm picture"]
    assert all(value > 0 for value in figures.seconds.values())
    assert not any("refiner" in name for name in figures.seconds)


def test_random_requests_are_the_same_again_and_of_every_kind():
    made = list(islice(requests(), 200))
    assert made == list(islice(requests(), 200))
    mains = {request.inputs.get("replicate_weights") for request in made}
    assert mains == {None, *ARCHIVES.values()}
    for name in ("extra_lora", "image", "mask"):
        assert 10 < sum(name in request.inputs for request in made) < 100
    assert 10 < sum(request.canceled_at is not None for request in made) < 50
    for request in made:
        main = request.inputs.get("replicate_weights", "nothing")
        assert main not in request.inputs.get("extra_lora", "")


def test_a_request_is_canceled_in_the_middle_or_ends_before():
    def endless() -> None:
        while True:
            time.sleep(0.001)

    handler = signal.getsignal(signal.SIGALRM)
    assert is_canceled(endless, 0.02)
    assert not is_canceled(lambda: None, 10)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == handler


def test_an_error_of_a_request_comes_through_and_no_cancellation_after_it():
    def failing() -> None:
        raise ValueError("bad prompt")

    with pytest.raises(ValueError, match="bad prompt"):
        is_canceled(failing, 10)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_door_that_keeps_a_tensor_of_every_request_is_found():
    kept = []

    def door(**_: object) -> None:
        kept.append(torch.zeros(1))

    uncanceled = (replace(request, canceled_at=None) for request in requests())
    made, num_canceled = sample_memory(door, ARCHIVES, uncanceled, count=6, every=2)
    assert [sample.num_requests for sample in made] == [0, 2, 4, 6]
    growth = np.diff([sample.num_tensors for sample in made])
    assert list(growth) == [4, 4, 4]  # two requests, and the two before each look
    assert num_canceled == 0


def test_the_real_door_keeps_no_tensor(tiny_sdxl_dir: Path, tmp_path: Path):
    archives = write_archives(load_tiny_sdxl(tiny_sdxl_dir), tmp_path)
    image = tmp_path / "image.png"
    Image.linear_gradient("L").convert("RGB").resize((64, 64)).save(image)
    made = islice(random_requests(archives, image, steps=4), 8)
    uncanceled = [replace(request, canceled_at=None) for request in made]
    environment = dict(os.environ)
    with open_door(str(tiny_sdxl_dir)) as door:
        assert os.environ == environment
        for request in uncanceled:  # the refiner is loaded
            door(**request.inputs)
        found, _ = sample_memory(door, archives, iter(uncanceled), count=8, every=4)
    assert len({sample.num_tensors for sample in found}) == 1


def test_half_files_are_loaded_in_half_precision_and_counted(
    tiny_models: SDXLModels, tmp_path: Path
):
    write_half_files(tiny_models, tmp_path)
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    figures = loading(tmp_path)
    halves = (tiny_models.unet, tiny_models.text_encoder, tiny_models.text_encoder_2)
    numbers = sum(p.numel() for network in halves for p in network.parameters())
    vae = sum(p.numel() for p in tiny_models.vae.parameters())
    assert figures.kept_bytes == 2 * numbers + 4 * vae
    assert figures.seconds > 0


def test_decoding_makes_a_picture_of_that_size(tiny_sdxl_dir: Path):
    figures = decoding(partial(load_tiny_sdxl, tiny_sdxl_dir), 64, is_tiled=False)
    assert figures.kept_bytes == 64 * 64 * 3


def test_a_new_process_is_another_one():
    assert in_a_new_process(os.getpid) != os.getpid()


def test_the_command_measures_the_server_the_pictures_and_the_swaps(
    tiny_sdxl_dir: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["--base", str(tiny_sdxl_dir), "--steps", "4", "--tries", "1"]) == 0
    text = capsys.readouterr().out
    assert "server: READY after" in text
    for kind in ("warm picture", "encoding the prompts alone", "base_image_refiner"):
        assert f"| {kind} |" in text
    assert "| LoRA to another of the same layers |" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--requests", "50"], "--requests must be a multiple of 20 and at least 60, got 50"),
        (["--requests", "20"], "--requests must be a multiple of 20 and at least 60, got 20"),
        (["--tries", "0"], "must be a whole number, at least 1, got '0'"),
        (["--requests", "60", "--full-size"], "not allowed with argument"),
    ],
)
def test_an_impossible_option_is_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
):
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err
