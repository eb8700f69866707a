"""How fast and how small does this machine serve? `script/bench predict [--base NAME]`.

Makes pictures with the pocket base through the real Cog server and in this process: the first, warm
ones, those right after a swap of fine-tunes, and of every mode. `--requests 200` sends so many
random requests to one predictor instead, and tells whether its memory grows. `--full-size` is SDXL
at its full size with random weights: on an NVIDIA GPU its pictures against the FLOP of its U-Net,
elsewhere the swaps, the loading and the decoding (16 GB of memory and 7 GB of disk).
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from bench.serving.full_size import (
    MemoryFigures,
    full_size_decoding,
    full_size_loading,
    full_size_swaps,
)
from bench.serving.gpu import measure_on_gpu
from bench.serving.many_requests import SAMPLE_EVERY, WARM_UP_REQUESTS, measure_many_requests
from bench.serving.memory import MB, Growth, MemorySample, peak_resident_bytes
from bench.serving.pictures import WARM, WARM_FINE_TUNED, measure_pictures
from bench.serving.server import ServerFigures, measure_server
from bench.serving.swaps import measure_swaps
from bench.speed.compute import matmul_flop_per_second, now
from bench.speed.full_size import full_size_models
from inference.generator import load_for_pictures
from inference.request import GenerationRequest
from script.local_demo.settings import PREDICT
from sdxl.downloads import resolve_base
from sdxl.logs import configure_logging

PROMPT = "a photo of TOK on the beach"
STEPS_OF_MANY = 4
FULL_SIZE_STEPS = 30
_LORA_RANK = 8
_TERA, _GIGA = 1e12, 1e9


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.requests % SAMPLE_EVERY or 0 < options.requests < 3 * SAMPLE_EVERY:
        parser.error(
            f"--requests must be a multiple of {SAMPLE_EVERY} and at least {3 * SAMPLE_EVERY}, got "
            f"{options.requests}"
        )
    configure_logging()
    _write(f"{_machine()}\n")
    if options.requests:
        bench_many(options.base, options.requests)
    elif options.full_size and torch.cuda.is_available():
        bench_gpu(options.tries)
    elif options.full_size:
        bench_full_size(options.tries)
    else:
        bench_pictures(options.base, options.steps, options.tries)
    return 0


def bench_pictures(base: str, steps: int, tries: int) -> None:
    """Measure a base: through the server, in this process, and its swaps."""
    inputs = {"prompt": PROMPT, "seed": 0, **PREDICT, "num_inference_steps": steps}
    _write_server(measure_server(base, inputs, tries))
    files = resolve_base(base)
    started = now(torch.device("cpu"))
    models = load_for_pictures(files)
    _write(f"\nloading alone: {now(models.unet.device) - started:.2f} s\n")
    request = GenerationRequest(
        prompt=PROMPT, num_inference_steps=steps, guidance_scale=PREDICT["guidance_scale"]
    )
    seconds = measure_pictures(models, request, files.configs, tries)
    _write_pictures(seconds)
    _write_peak()
    _write_swaps(measure_swaps(load_for_pictures(files), tries, _LORA_RANK), seconds[WARM])


def bench_many(base: str, count: int) -> list[MemorySample]:
    """Send many requests to one predictor, and say whether its memory grows."""
    models = load_for_pictures(resolve_base(base))
    with tempfile.TemporaryDirectory(prefix="bench-predict-") as folder:
        samples, num_canceled = measure_many_requests(
            base, models, Path(folder), count, STEPS_OF_MANY, WARM_UP_REQUESTS
        )
    _write(f"{count} requests, {num_canceled} of them canceled\n\n")
    _write("| requests | resident, MB | live tensors |\n|---|---|---|\n")
    for sample in samples:
        resident = sample.resident_bytes / MB
        _write(f"| {sample.num_requests} | {resident:.1f} | {sample.num_tensors} |\n")
    growth = Growth.of(samples)
    verdict = "beyond noise" if growth.is_beyond_noise else "not beyond noise"
    tensors = samples[-1].num_tensors - samples[0].num_tensors
    _write(
        f"\n{growth.mb_per_100:+.2f} MB in 100 requests (standard error {growth.error_mb:.2f}): "
        f"{verdict}; {tensors:+d} tensors\n"
    )
    return samples


def bench_gpu(tries: int) -> None:
    """Measure SDXL at its full size on the GPU, plain and compiled."""
    device, dtype = torch.device("cuda"), torch.float16
    matmul = matmul_flop_per_second(device, dtype, 8192)
    request = GenerationRequest(prompt=PROMPT, num_inference_steps=FULL_SIZE_STEPS)
    for compile_backend in (None, "inductor"):
        load = partial(full_size_models, device, dtype)
        figures = measure_on_gpu(load, request, tries, compile_backend)
        _write(
            f"\n{'compiled' if compile_backend else 'plain'}: {figures.flop / _TERA:.0f} TFLOP a "
            f"picture at {figures.flop_per_second / _TERA:.0f} TFLOP/s, "
            f"{figures.flop_per_second / matmul:.0%} of the product of matrices; at most "
            f"{figures.peak_bytes / _GIGA:.1f} GB\n"
        )
        _write_pictures(figures.seconds)


def bench_full_size(tries: int) -> None:
    """Measure of SDXL at its full size what makes sense without a GPU."""
    loading = full_size_loading()
    _write_memory({"loading float16 files": loading})
    _write(f"peak memory is {loading.peak_bytes / loading.kept_bytes:.2f} times the weights\n")
    _write_memory(full_size_decoding())
    swaps = full_size_swaps(tries)
    _write_swaps(swaps, next(iter(swaps.values())))


def _write_server(figures: ServerFigures) -> None:
    _write(
        f"server: READY after {figures.ready_seconds:.1f} s, first picture "
        f"{figures.first_seconds:.2f} s, warm {figures.warm_seconds:.2f} s; "
        f"{figures.resident_bytes / MB:.0f} MB in all its processes\n"
    )


def _write_pictures(seconds: Mapping[str, float]) -> None:
    _write("\n| picture | s | of a warm one | of a warm fine-tuned one |\n|---|---|---|---|\n")
    for name, value in seconds.items():
        tuned = value / seconds[WARM_FINE_TUNED]
        _write(f"| {name} | {value:.3f} | {value / seconds[WARM]:.2f} | {tuned:.2f} |\n")


def _write_swaps(seconds: Mapping[str, float], unit: float) -> None:
    _write("\n| swap alone | s | ratio |\n|---|---|---|\n")
    for name, value in seconds.items():
        _write(f"| {name} | {value:.4f} | {value / unit:.3f} |\n")


def _write_memory(figures: Mapping[str, MemoryFigures]) -> None:
    _write("\n| what | s | peak, MB | of it kept, MB |\n|---|---|---|---|\n")
    for name, each in figures.items():
        peak, kept = each.peak_bytes / MB, each.kept_bytes / MB
        _write(f"| {name} | {each.seconds:.1f} | {peak:.0f} | {kept:.0f} |\n")


def _write_peak() -> None:
    text = f"\nthis process had at most {peak_resident_bytes() / MB:.0f} MB"
    if torch.cuda.is_available():
        text += f", and {torch.cuda.max_memory_allocated() / MB:.0f} MB of the GPU"
    _write(f"{text}\n")


def _machine() -> str:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
        return int(text)

    parser = argparse.ArgumentParser(prog="script/bench predict", description=__doc__)
    parser.add_argument("--base", default="pocket", help="as BASE_MODEL, and its own refiner")
    parser.add_argument("--steps", type=count, default=PREDICT["num_inference_steps"])
    parser.add_argument("--tries", type=count, default=3, help="of which the median is taken")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--requests", type=count, default=0, help="so many, and the memory")
    kinds.add_argument("--full-size", action="store_true", help="SDXL with random weights")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
