"""Hundreds of random requests to one predictor, and what memory it has between them."""

import inspect
import logging
import os
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from cog import CancelationException
from PIL import Image

from bench.serving.memory import MemorySample, live_tensors, resident_bytes
from bench.serving.weights import lora_fine_tune, whole_fine_tune
from sdxl.models import SDXLModels
from sdxl.weights.archive import save_weights

WHOLE, SAME, OTHER = "whole", ("first", "second", "third"), "other"
SAMPLE_EVERY = 20
WARM_UP_REQUESTS = 120
_PLAIN: Mapping[str, Any] = {"guidance_scale": 2.0, "disable_safety_checker": True}


class Door(Protocol):
    """Takes a prediction's inputs by name; what is missing has the door's default."""

    def __call__(self, **inputs: Any) -> object:
        """Make pictures."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomRequest:
    """One request.

    Attributes:
        inputs: Of the door.
        canceled_at: Part of the time of a usual request, after which it is canceled; None lets it
            end.
    """

    inputs: dict[str, Any]
    canceled_at: float | None = None


@contextmanager
def open_door(base: str) -> Iterator[Door]:
    """Give `predict` of a predictor that serves a base model in this process.

    Args:
        base: As `BASE_MODEL`, and its own refiner.
    """
    environment = dict(os.environ)
    os.environ |= {"BASE_MODEL": base, "REFINER_MODEL": base}
    try:
        with warnings.catch_warnings():
            # our names are on Cog's deprecated side: docs/decisions/0001-cog-names-and-pinning.md
            warnings.simplefilter("ignore", DeprecationWarning)
            from predict import Predictor

            predictor = Predictor()
        predictor.setup()
    finally:
        os.environ.clear()
        os.environ |= environment
    parameters = inspect.signature(predictor.predict).parameters
    defaults = {name: parameter.default.default for name, parameter in parameters.items()}

    def predict(**inputs: Any) -> object:
        return predictor.predict(**defaults | inputs)

    try:
        yield predict
    finally:
        if predictor.out_dir:
            predictor.out_dir.cleanup()


def write_archives(models: SDXLModels, folder: Path) -> dict[str, str]:
    """Write fine-tunes to `folder`, and return their paths by name.

    Three are on the same layers, one of them at another rank, one is on others, one is a whole
    U-Net.
    """
    fine_tunes = {
        name: lora_fine_tune(models, seed, rank=rank)
        for seed, (name, rank) in enumerate(zip(SAME, (8, 8, 4), strict=True))
    }
    fine_tunes[OTHER] = lora_fine_tune(models, len(SAME), "all")
    fine_tunes[WHOLE] = whole_fine_tune(models)
    paths = {}
    for name, fine_tune in fine_tunes.items():
        save_weights(fine_tune.weights, folder / f"{name}.tar")
        paths[name] = str(folder / f"{name}.tar")
    return paths


def random_requests(
    archives: Mapping[str, str], image: Path, steps: int, seed: int = 0
) -> Iterator[RandomRequest]:
    """Yield requests without end: of eight one is canceled, two or so start from an image.

    Args:
        archives: By name; see `write_archives`.
        image: For image to image; it is its own mask for inpainting.
        steps: Denoising steps of each.
        seed: Of the choices.
    """
    rng = np.random.default_rng(seed)
    while True:
        main = rng.choice(["", *archives])
        inputs: dict[str, Any] = {
            **_PLAIN,
            "prompt": str(rng.choice(["a photo of TOK", "(TOK:1.3) in the snow"])),
            "num_inference_steps": steps,
            "seed": int(rng.integers(1000)),
            "lora_scale": float(rng.choice([0, 0.6, 1])),
            "num_outputs": int(rng.choice([1, 1, 2])),
            "refine": str(rng.choice(["no_refiner"] * 6 + ["base_image_refiner"])),
            "output_format": str(rng.choice(["png", "webp", "jpg"])),
        }
        if main:
            inputs["replicate_weights"] = archives[main]
        others = [name for name in (*SAME, OTHER) if name != main]
        if rng.random() < 0.25:
            extra = rng.choice(others, size=rng.integers(1, 3), replace=False)
            inputs["extra_lora"] = ", ".join(f"{archives[name]}:0.5" for name in extra)
        if rng.random() < 0.25:
            inputs["image"] = image
        if rng.random() < 0.125:
            inputs |= {"image": image, "mask": image}
        is_canceled = rng.random() < 0.125
        yield RandomRequest(inputs=inputs, canceled_at=rng.random() if is_canceled else None)


def sample_memory(
    door: Door,
    archives: Mapping[str, str],
    requests: Iterator[RandomRequest],
    count: int,
    every: int = SAMPLE_EVERY,
) -> tuple[list[MemorySample], int]:
    """Send requests, and look at the memory before them, after every `every` and at the end.

    Before each look a whole U-Net and then a LoRA act, so that the model holds the same things.

    Args:
        door: See `open_door`.
        archives: By name.
        requests: At least `count`.
        count: A multiple of `every`.
        every: Requests between two looks.

    Returns:
        The samples, and how many of the requests were canceled.
    """
    usual = {**_PLAIN, "prompt": "a photo of TOK", "num_inference_steps": 1, "seed": 0}

    def look(num_requests: int) -> MemorySample:
        for name in (WHOLE, SAME[0]):
            door(**usual, replicate_weights=archives[name])
        num_tensors = live_tensors()
        return MemorySample(
            num_requests=num_requests, resident_bytes=resident_bytes(), num_tensors=num_tensors
        )

    samples, seconds, num_canceled = [look(0)], [1.0], 0
    for done in range(1, count + 1):
        request = next(requests)
        send = partial(door, **request.inputs)
        if request.canceled_at is None:
            started = time.perf_counter()
            send()
            seconds.append(time.perf_counter() - started)
        else:
            num_canceled += is_canceled(send, request.canceled_at * statistics.median(seconds))
        if done % every == 0:
            samples.append(look(done))
    return samples, num_canceled


def is_canceled(action: Callable[[], object], seconds: float) -> bool:
    """Run `action`, cancel it after some seconds as Cog does, and tell whether that ended it.

    For the main thread, on a system with signals.
    """

    def cancel(*_: object) -> None:
        raise CancelationException

    before = signal.signal(signal.SIGALRM, cancel)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))  # 0 would be never
        action()
    except CancelationException:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False


def measure_many_requests(
    base: str, models: SDXLModels, folder: Path, count: int, steps: int, warm_up: int
) -> tuple[list[MemorySample], int]:
    """Send `warm_up` requests and then `count` more; see `sample_memory`.

    Args:
        base: As `BASE_MODEL`.
        models: The same base, for the shapes of the fine-tunes.
        folder: An empty one, for them.
        count: A multiple of `SAMPLE_EVERY`.
        steps: Of each request.
        warm_up: In which the refiner is loaded, and every kind of request comes.
    """
    archives = write_archives(models, folder)
    size = models.native_size_px
    image = folder / "image.png"
    Image.linear_gradient("L").convert("RGB").resize((size, size)).save(image)
    requests = random_requests(archives, image, steps)
    expert = {"refine": "expert_ensemble_refiner", "num_inference_steps": steps}
    with open_door(base) as door:
        logging.getLogger().setLevel(logging.ERROR)
        for _ in range(warm_up):
            door(**next(requests).inputs)
        door(**_PLAIN, **expert, prompt="a photo of TOK", seed=0)
        return sample_memory(door, archives, requests, count)
