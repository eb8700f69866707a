"""How fast does this machine train? `script/bench train [--base NAME] [--batch-sizes 1 4]`.

Runs the trainer's own loop on pictures of noise: with an NVIDIA GPU on SDXL at its full size with
random weights, elsewhere on the pocket base. The rates are those of the U-Net, in which a step of
LoRA counts as two forward passes and one of the whole U-Net as three; their share is that of the
best matrix product measured on the same machine, in the same run.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState

from bench.speed.compute import matmul_flop_per_second
from bench.speed.full_size import full_size_models
from bench.speed.measure import LoadModels, RunFigures, Workload, compute_dtype, measure
from sdxl.downloads import POCKET
from sdxl.logs import configure_logging
from sdxl.models import load_models
from trainer.config import GradientCheckpointing
from trainer.hardware import choose_mixed_precision

BASES: dict[str, LoadModels] = {
    "full-size": full_size_models,
    "pocket": partial(load_models, POCKET),
}
RESOLUTIONS = {"full-size": 1024, "pocket": 128}
WATCHED_STEPS = 3  # with a GPU, in each phase
_TERA = 1e12
_HEAD = (
    "| px | batch | phase | s/step | images/s | TFLOP/s | of matmul | peak GB | checkpointing "
    "| host waits/step | s to 1st step | of them in it |\n" + "|---" * 12 + "|\n"
)


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    has_cuda = torch.cuda.is_available()
    parser = _parser(has_cuda)
    options = parser.parse_args(argv)
    try:
        workloads = [
            Workload(
                resolution=resolution,
                batch_size=batch_size,
                method=options.method,
                gradient_checkpointing=options.gradient_checkpointing,
                warmup_steps=options.warmup_steps,
                measured_steps=options.steps,
                watched_steps=WATCHED_STEPS if has_cuda else 0,
            )
            for resolution in options.resolutions or [RESOLUTIONS[options.base]]
            for batch_size in options.batch_sizes
        ]
    except ValueError as error:
        parser.error(str(error))
    configure_logging()
    AcceleratorState._reset_state()
    precision = choose_mixed_precision("auto", PartialState().device)
    accelerator = Accelerator(mixed_precision=precision)
    bench(BASES[options.base], workloads, accelerator, options.base, options.json)
    return 0


def bench(
    load: LoadModels,
    workloads: Sequence[Workload],
    accelerator: Accelerator,
    base: str,
    json_path: Path | None = None,
) -> list[RunFigures]:
    """Measure every workload, and print each as soon as it is done.

    Args:
        load: Gives models of the run's own.
        workloads: What is trained.
        accelerator: Device and precision.
        base: What `load` loads, for the reader.
        json_path: Gets the figures so far, with all that the table leaves out.
    """
    device, dtype = accelerator.device, compute_dtype(accelerator)
    side = 8192 if device.type == "cuda" else 2048
    matmul = matmul_flop_per_second(device, dtype, side)
    machine = {
        "base": base,
        "device": _device_name(device),
        "torch": torch.__version__,
        "dtype": str(dtype).removeprefix("torch."),
        "matmul_side": side,
        "matmul_flop_per_second": matmul,
    }
    sys.stdout.write(
        f"{base}, {machine['device']}, torch {machine['torch']}, {machine['dtype']}; "
        f"product of matrices of {side}: {matmul / _TERA:.4g} TFLOP/s\n\n{_HEAD}"
    )
    runs: list[RunFigures] = []
    for workload in workloads:
        runs.append(measure(load, workload, accelerator))
        sys.stdout.write(_rows(runs[-1], matmul))
        sys.stdout.flush()
        if json_path:
            record = machine | {"runs": [asdict(run) for run in runs]}
            json_path.write_text(json.dumps(record, indent=2) + "\n")
    sys.stdout.write(_notices(runs))
    return runs


def _rows(run: RunFigures, matmul: float) -> str:
    """Return a row of the table for each phase."""
    work = run.workload
    text = ""
    for phase, figures in run.phases.items():
        waits = sum(figures.host_waits.values())
        cells = (
            str(work.resolution),
            str(work.batch_size),
            phase,
            f"{figures.seconds_per_step:.4g}",
            f"{figures.images_per_second:.3g}",
            f"{figures.flop_per_second / _TERA:.3g}",
            f"{figures.flop_per_second / matmul:.0%}",
            f"{figures.peak_gb:.1f}",
            "on" if run.gradient_checkpointing else "off",
            f"{waits / work.watched_steps:g}" if work.watched_steps else "-",
            f"{run.seconds_to_first_step:.1f}",
            f"{run.first_step_seconds:.1f}",
        )
        text += f"| {' | '.join(cells)} |\n"
    return text


def _notices(runs: Sequence[RunFigures]) -> str:
    """Return what spoils the figures: losses that are no numbers, and waits of the host."""
    lines = []
    for run in runs:
        work = run.workload
        name = f"{work.resolution} px, batch {work.batch_size}"
        if not run.has_finite_losses:
            lines.append(f"{name}: the losses are not finite, which can make a GPU faster")
        lines += [
            f"{name}, {phase}: {place} made the host wait {times} times in {work.watched_steps} steps"
            for phase, figures in run.phases.items()
            for place, times in figures.host_waits.items()
        ]
    return "\n".join(["", *lines, ""]) if lines else ""


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _parser(has_cuda: bool) -> argparse.ArgumentParser:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
        return int(text)

    parser = argparse.ArgumentParser(prog="script/bench train", description=__doc__)
    default_base = "full-size" if has_cuda else "pocket"
    parser.add_argument("--base", choices=BASES, default=default_base)
    parser.add_argument("--resolutions", type=count, nargs="+", help="px; 1024, for pocket 128")
    parser.add_argument("--batch-sizes", type=count, nargs="+", default=[1, 4])
    parser.add_argument("--method", choices=("lora", "dora", "full"), default="lora")
    parser.add_argument(
        "--gradient-checkpointing", choices=get_args(GradientCheckpointing), default="auto"
    )
    parser.add_argument(
        "--steps", type=count, default=20 if has_cuda else 30, help="measured in each phase"
    )
    parser.add_argument("--warmup-steps", type=count, default=3, help="before them in each phase")
    parser.add_argument("--json", type=Path, help="file for all figures")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
