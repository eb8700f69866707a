"""SDXL at its full size with random weights, without a GPU: swaps, loading and decoding."""

import gc
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from bench.serving.memory import PeakMemory
from bench.serving.swaps import measure_swaps
from bench.speed.full_size import full_size_models
from sdxl.downloads import POCKET
from sdxl.models import PARTS, SDXLModels, load_models
from sdxl.pipeline import decode

LORA_RANK = 32
DECODED_SIDES_PX = ((512, False), (1024, False), (1024, True))
"""Side of a square picture, and whether it is decoded in tiles."""
_CPU = torch.device("cpu")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFigures:
    """What something took.

    Attributes:
        seconds: Until it was done.
        peak_bytes: The most memory beyond that of before.
        kept_bytes: Of the tensors that it made.
    """

    seconds: float
    peak_bytes: int
    kept_bytes: int


def full_size_swaps(tries: int) -> dict[str, float]:
    """Return the seconds of swapping LoRAs of rank 32 in SDXL in bfloat16, on the CPU."""
    models = full_size_models(_CPU, torch.bfloat16)
    return measure_swaps(models, tries, LORA_RANK, with_whole=False)


def full_size_loading() -> MemoryFigures:
    """Write SDXL as float16 files to a temporary folder (7 GB), and load it in a new process."""
    with tempfile.TemporaryDirectory(prefix="bench-predict-") as folder:
        write_half_files(full_size_models(_CPU, torch.float16), Path(folder))
        gc.collect()
        return in_a_new_process(partial(loading, Path(folder)))


def full_size_decoding() -> dict[str, MemoryFigures]:
    """Return what decoding takes in float32, each size in a process of its own."""
    figures = {}
    for side, is_tiled in DECODED_SIDES_PX:
        name = f"{side}x{side}, {'tiled' if is_tiled else 'whole'}"
        figures[name] = in_a_new_process(partial(decoding, _full_size_meta, side, is_tiled))
    return figures


def write_half_files(models: SDXLModels, folder: Path) -> None:
    """Write `models` as a diffusers directory of float16 files, which may be read from a GPU."""
    for part in PARTS:
        network = getattr(models, part, None)
        if isinstance(network, nn.Module):
            network.to(torch.float16)
            network.save_pretrained(folder / part, variant="fp16")
        else:
            shutil.copytree(POCKET / part, folder / part)


def loading(base: Path) -> MemoryFigures:
    """Load a base in float16, its VAE in float32, and read every weight as a GPU would get it."""
    with PeakMemory() as memory:
        started = time.perf_counter()
        models = load_models(base, _CPU, torch.float16)
        networks = (models.unet, models.vae, models.text_encoder, models.text_encoder_2)
        for network in networks:  # files are mapped: pages come when they are read
            for parameter in network.parameters():
                parameter.amax()
        seconds = time.perf_counter() - started
    return MemoryFigures(
        seconds=seconds,
        peak_bytes=memory.most - memory.before,
        kept_bytes=sum(p.nbytes for network in networks for p in network.parameters()),
    )


def decoding(load: Callable[[], SDXLModels], side_px: int, is_tiled: bool) -> MemoryFigures:
    """Decode noise with a VAE of random weights.

    Args:
        load: Gives a model, perhaps without values.
        side_px: Of the picture, a square.
        is_tiled: Decode in tiles.
    """
    models = load()
    vae = models.vae.to_empty(device=_CPU)
    for parameter in vae.parameters():
        nn.init.normal_(parameter, std=0.02)
    cells = side_px // models.vae_scale_factor
    latents = torch.randn(1, 4, cells, cells, generator=torch.Generator().manual_seed(0))
    with PeakMemory() as memory:
        started = time.perf_counter()
        (picture,) = decode(vae, latents, is_tiled)
        seconds = time.perf_counter() - started
    return MemoryFigures(
        seconds=seconds,
        peak_bytes=memory.most - memory.before,
        kept_bytes=picture.width * picture.height * 3,
    )


def in_a_new_process(action: Callable[[], _T]) -> _T:
    """Return what `action` returns in a process that has done nothing else."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(action).result()


def _full_size_meta() -> SDXLModels:
    return full_size_models(torch.device("meta"), torch.float32)
