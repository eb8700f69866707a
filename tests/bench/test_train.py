"""The figures of `script/bench train`; how large they are says nothing here."""

import dataclasses
import json
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from bench.speed.compute import NUM_TRIES, matmul_flop_per_second, unet_forward_flop
from bench.speed.full_size import full_size_models
from bench.speed.measure import NUM_PICTURES, Stopwatch, Workload, measure
from bench.speed.waiting import host_waits, warned_places
from bench.train import bench, main
from sdxl.concept import Concept, expand
from sdxl.models import SDXLModels, load_models
from tests.tiny_sdxl import CPU
from trainer.config import TrainConfig
from trainer.prepare import add_trainables
from trainer.schedule import PivotalSchedule

SDXL_VOCABULARY = 49408
WORKLOAD = Workload(
    resolution=64, batch_size=1, warmup_steps=1, measured_steps=2, watched_steps=0
)  # fmt: skip


@pytest.fixture(scope="module")
def full_size() -> SDXLModels:
    """SDXL with the shapes of its weights, and without their values."""
    return full_size_models(torch.device("meta"), torch.bfloat16)


@pytest.fixture
def accelerator() -> Accelerator:
    AcceleratorState._reset_state()
    return Accelerator(cpu=True, mixed_precision="no")


@pytest.mark.parametrize(("side_px", "flop"), [(512, 1.589e12), (768, 3.641e12), (1024, 6.761e12)])
def test_a_forward_of_sdxl_counts_the_flop_that_are_known_of_it(
    full_size: SDXLModels, side_px: int, flop: float
):
    cells = side_px // full_size.vae_scale_factor
    assert unet_forward_flop(full_size.unet, cells, cells) == pytest.approx(flop, rel=1e-3)


def test_the_full_size_base_has_sdxls_parameters(full_size: SDXLModels):
    def count(network: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    missing_rows = SDXL_VOCABULARY - len(full_size.tokenizer)
    assert count(full_size.unet) == 2_567_463_684
    assert count(full_size.vae) == 83_653_863
    assert count(full_size.text_encoder) == 123_060_480 - 768 * missing_rows
    assert count(full_size.text_encoder_2) == 694_659_840 - 1280 * missing_rows
    assert full_size.native_size_px == 1024


def test_the_full_size_base_is_made_frozen_on_the_device_in_the_dtype(full_size: SDXLModels):
    for network in (full_size.text_encoder, full_size.text_encoder_2, full_size.unet):
        assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in full_size.vae.parameters()} == {torch.float32}
    for network in (
        full_size.text_encoder,
        full_size.text_encoder_2,
        full_size.unet,
        full_size.vae,
    ):
        assert {p.device.type for p in network.parameters()} == {"meta"}
        assert not any(p.requires_grad for p in network.parameters())
        assert not network.training
    assert torch.get_default_dtype() == torch.float32


def test_new_tokens_come_right_behind_the_tables_of_the_full_size_base(full_size: SDXLModels):
    for encoder, tokenizer in (
        (full_size.text_encoder, full_size.tokenizer),
        (full_size.text_encoder_2, full_size.tokenizer_2),
    ):
        assert encoder.get_input_embeddings().num_embeddings == len(tokenizer)


def test_lora_does_not_count_in_the_flop_of_the_model(tiny_models: SDXLModels):
    before = unet_forward_flop(tiny_models.unet, 8, 8)
    add_trainables(tiny_models, TrainConfig(resolution=64))
    assert unet_forward_flop(tiny_models.unet, 8, 8) == before


def test_the_bench_gives_figures_of_both_phases_for_every_batch_size(
    tiny_sdxl_dir: Path,
    tmp_path: Path,
    accelerator: Accelerator,
    capsys: pytest.CaptureFixture[str],
):
    workloads = [dataclasses.replace(WORKLOAD, batch_size=size) for size in (1, 4)]
    load = partial(load_models, tiny_sdxl_dir)
    runs = bench(load, workloads, accelerator, "tiny", tmp_path / "figures.json")

    assert [run.workload.batch_size for run in runs] == [1, 4]
    for run in runs:
        assert list(run.phases) == ["inversion", "tuning"]
        assert run.has_finite_losses
        assert 0 < run.first_step_seconds < run.seconds_to_first_step < math.inf
        for figures in run.phases.values():
            assert 0 < figures.seconds_per_step < math.inf
            images = run.workload.batch_size / figures.seconds_per_step
            assert figures.images_per_second == pytest.approx(images)
            assert figures.flop_per_second == pytest.approx(images * 2 * run.forward_flop)
            assert 0.1 < figures.peak_gb < 100
            assert figures.host_waits == {}
    record = json.loads((tmp_path / "figures.json").read_text())
    assert record["runs"] == [dataclasses.asdict(run) for run in runs]
    assert record["matmul_flop_per_second"] > 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if " | " in line]
    assert [row[:3] for row in rows[1:]] == [
        ["| 64", batch, phase] for batch in ("1", "4") for phase in ("inversion", "tuning")
    ]
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize(("method", "forwards"), [("dora", 2), ("full", 3)])
def test_a_step_counts_in_forwards_by_what_it_trains(
    tiny_sdxl_dir: Path, accelerator: Accelerator, method: str, forwards: int
):
    workload = dataclasses.replace(WORKLOAD, method=method)
    run = measure(partial(load_models, tiny_sdxl_dir), workload, accelerator)
    for figures in run.phases.values():
        flop_per_image = figures.flop_per_second / figures.images_per_second
        assert flop_per_image == pytest.approx(forwards * run.forward_flop)


def test_loading_counts_in_the_seconds_to_the_first_step_but_not_in_it(
    tiny_sdxl_dir: Path, accelerator: Accelerator
):
    def load(device: torch.device, dtype: torch.dtype) -> SDXLModels:
        time.sleep(0.5)
        return load_models(tiny_sdxl_dir, device, dtype)

    run = measure(load, WORKLOAD, accelerator)
    assert run.seconds_to_first_step - run.first_step_seconds >= 0.5


def test_losses_that_are_no_numbers_are_reported(
    tiny_sdxl_dir: Path, accelerator: Accelerator, capsys: pytest.CaptureFixture[str]
):
    def load(device: torch.device, dtype: torch.dtype) -> SDXLModels:
        models = load_models(tiny_sdxl_dir, device, dtype)
        models.unet.conv_in.weight.data.fill_(math.nan)
        return models

    bench(load, [WORKLOAD], accelerator, "broken")
    assert "64 px, batch 1: the losses are not finite" in capsys.readouterr().out


def test_only_the_measured_steps_are_timed():
    workload = dataclasses.replace(WORKLOAD, warmup_steps=2, measured_steps=2, watched_steps=2)
    ends = []
    with ExitStack() as watching:
        stopwatch = Stopwatch(workload, CPU, watching)
        for step in range(1, 13):
            time.sleep(0.1)
            stopwatch.after_step(step, torch.zeros(step))
            ends.append(time.perf_counter())
    expected = [ends[3] - ends[1], ends[9] - ends[7]]
    assert stopwatch.seconds == pytest.approx(expected, abs=0.05)
    assert len(stopwatch.peaks_gb) == len(stopwatch.host_waits) == 2


@pytest.mark.parametrize("batch_size", [1, NUM_PICTURES, 3 * NUM_PICTURES])
@pytest.mark.parametrize("measured_steps", [1, 30, 9000])
def test_the_pivot_lies_between_the_phases(batch_size: int, measured_steps: int):
    workload = Workload(
        resolution=64,
        batch_size=batch_size,
        warmup_steps=2,
        measured_steps=measured_steps,
        watched_steps=3,
    )
    config = workload.config()
    schedule = PivotalSchedule.from_config(config, config.total_steps(NUM_PICTURES))
    assert schedule.pivot_step == 2 + measured_steps + 3
    assert schedule.num_steps == 2 * schedule.pivot_step


def test_the_best_of_several_matrix_products_is_no_slower_than_their_mean():
    started = time.perf_counter()
    best = matmul_flop_per_second(CPU, torch.float32, 512)
    mean = NUM_TRIES * 2 * 512**3 / (time.perf_counter() - started)
    assert mean < best < 1e15


def test_a_wait_is_counted_at_the_line_of_ours_that_caused_it():
    def concepts() -> Iterator[Concept]:
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        yield Concept.with_vectors("TOK", 2)

    with warned_places("synchronizing") as places:
        expand("a photo of TOK", concepts())
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
    (ours,) = set(places) - {"elsewhere"}
    assert ours.startswith("sdxl/concept.py:")
    assert places == {ours: 3, "elsewhere": 1}


def test_other_warnings_are_still_seen():
    def warn() -> None:
        with warned_places("synchronizing") as places:
            warnings.simplefilter("always")
            warnings.warn("another", stacklevel=1)
        assert not places

    with pytest.warns(UserWarning, match="another"):
        warn()


def test_nothing_waits_for_a_cpu():
    with host_waits(CPU) as places:
        assert torch.ones(()).item() == 1
    assert places == {}


def test_the_command_measures_the_pocket_base(capsys: pytest.CaptureFixture[str]):
    steps = ["--steps", "1", "--warmup-steps", "1"]
    assert main(["--base", "pocket", "--resolutions", "64", "--batch-sizes", "2", *steps]) == 0
    assert "| 64 | 2 | tuning |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resolutions", "60"], "resolution must be at least 64, got 60"),
        (["--resolutions", "100"], "resolution must be a multiple of 8, got 100"),
        (["--steps", "0"], "must be a whole number, at least 1, got '0'"),
    ],
)
def test_an_impossible_option_is_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
):
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err
