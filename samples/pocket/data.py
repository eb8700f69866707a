"""The training pictures: rendered in parallel once and kept in the work folder."""

import json
import logging
import multiprocessing
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from samples.pocket.frame import REFERENCE, Crop
from samples.pocket.render import Scene, scene
from samples.pocket.toys import Toy

logger = logging.getLogger(__name__)

_CHUNK = 100
_PICTURES, _SCENES = "pictures.npy", "scenes.json"


def _render_chunk(job: tuple[int, int, int]) -> list[tuple[np.ndarray, dict]]:
    seed, index, count = job
    # Each chunk has its own generator, so the result does not depend on the number of workers.
    rng = np.random.default_rng([seed, index])
    renders = [scene(rng, crops=True) for _ in range(count)]
    return [(r.picture, asdict(r.scene)) for r in renders]


def _scene(fields: dict) -> Scene:
    contents = tuple(Toy(**toy) for toy in fields["toys"])
    return Scene(fields["where"], contents, fields["size"], Crop(**fields["crop"]))


def make(folder: Path, count: int, seed: int = 1, workers: int | None = None) -> None:
    """Renders `count` scenes into `folder`; the same count and seed give the same pictures."""
    jobs = [(seed, i, min(_CHUNK, count - i * _CHUNK)) for i in range(-(-count // _CHUNK))]
    pictures = np.empty((count, REFERENCE, REFERENCE, 3), np.uint8)
    scenes: list[dict] = []
    # Forking a process that has already used OpenMP can hang; spawned workers start clean.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers or os.cpu_count()) as pool:
        for chunk in pool.imap(_render_chunk, jobs):
            for picture, fields in chunk:
                pictures[len(scenes)] = picture
                scenes.append(fields)
            if len(scenes) % (_CHUNK * 40) == 0:
                logger.info("rendered %d of %d", len(scenes), count)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / _PICTURES, pictures)
    # The scenes are written last: their presence means that the stage is complete.
    (folder / _SCENES).write_text(json.dumps(scenes), encoding="ascii")


def done(folder: Path) -> bool:
    """Whether `make` has finished in this folder."""
    return (folder / _SCENES).exists()


def pictures(folder: Path) -> np.ndarray:
    """All pictures, uint8, (n, 128, 128, 3); in memory, since mapped files made training slow."""
    return np.load(folder / _PICTURES)


def scenes(folder: Path) -> list[Scene]:
    """What each picture shows."""
    return [_scene(f) for f in json.loads((folder / _SCENES).read_text(encoding="ascii"))]
