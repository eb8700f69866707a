"""How long does a full-size LoRA take to shrink? `script/bench resize [--target T] [--max-mb M]`.

Draws matrices of rank 32 in the shapes of SDXL, resizes them and writes the file for web UIs.
"""

import argparse
import re
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch

from bench.speed.full_size import full_size_models
from sdxl.lora_target import LORA_TARGET_MODULES, LoraTarget
from sdxl.weights.resize import BYTES_PER_MB, resize_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.writing import write_weights

_BYTES_PER_KIB = 1024  # the unit of ru_maxrss on Linux


def main(argv: list[str]) -> int:
    """Print seconds, sizes and the peak of memory."""
    parser = argparse.ArgumentParser(prog="script/bench resize", description=__doc__)
    parser.add_argument("--target", choices=get_args(LoraTarget), default="attention")
    parser.add_argument("--rank", type=int, default=32, help="of the file")
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument("--to-rank", type=int, default=4)
    limits.add_argument("--energy", type=float)
    limits.add_argument("--max-mb", type=float)
    options = parser.parse_args(argv)
    weights = random_weights(full_size_shapes(options.target), options.rank)
    num_parameters = sum(value.numel() for value in weights.lora.values())
    before_mb = _peak_mb()
    started = time.monotonic()
    given = options.energy or options.max_mb
    resized = resize_weights(
        weights,
        rank=None if given else options.to_rank,
        energy=options.energy,
        max_bytes=int(options.max_mb * BYTES_PER_MB) if options.max_mb else None,
    )
    resized_seconds = time.monotonic() - started
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lora.safetensors")
        write_weights(resized, path, "webui")
        size_mb = path.stat().st_size / BYTES_PER_MB
    sys.stdout.write(
        f"{options.target}, rank {options.rank}, {num_parameters / 1e6:.1f} million parameters, "
        f"{torch.get_num_threads()} threads: resized in {resized_seconds:.1f} s, written as "
        f"{size_mb:.2f} MB in {time.monotonic() - started - resized_seconds:.1f} s; peak "
        f"{_peak_mb():.0f} MB of memory, of which {before_mb:.0f} before\n"
    )
    return 0


def full_size_shapes(target: LoraTarget) -> dict[str, tuple[int, ...]]:
    """Return the shapes, (out, in, ...), of the layers of SDXL's U-Net that get LoRA."""
    unet = full_size_models(torch.device("meta"), torch.float16).unet
    layers = re.compile(rf".*\.(?:{LORA_TARGET_MODULES[target]})")
    return {
        name: tuple(module.weight.shape)
        for name, module in unet.named_modules()
        if layers.fullmatch(name)
    }


def random_weights(shapes: Mapping[str, tuple[int, ...]], rank: int) -> TrainedWeights:
    """Return LoRA of a U-Net with layers of these shapes as drawn, without embeddings."""
    generator = torch.Generator().manual_seed(0)
    lora = {}
    for path, (outputs, inputs, *kernel) in shapes.items():
        ones = [1 for _ in kernel]
        lora[f"{path}.lora_A.weight"] = torch.randn(rank, inputs, *kernel, generator=generator)
        lora[f"{path}.lora_B.weight"] = torch.randn(outputs, rank, *ones, generator=generator)
    return TrainedWeights(concepts=(), embeddings=None, lora=lora)


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * _BYTES_PER_KIB / BYTES_PER_MB


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
