"""How small may a file be? `script/bench sizes [--seeds 0 1] [--steps N] [-o PICTURES.png]`.

Trains the demo's settings at rank 32 on the pocket base, resizes the result to smaller ranks, and
to the sizes that these have with the rank chosen for each layer, and scores each. Then computes how
large the web UI's file of a full-size SDXL is; `--full-size` does that alone.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from bench.learning.pictures import training_pictures
from bench.learning.subject import Score, SubjectBench
from bench.resize import full_size_shapes, random_weights
from script.local_demo.settings import TRAIN
from sdxl.logs import configure_logging
from sdxl.lora_target import LoraTarget
from sdxl.weights.archive import save_weights
from sdxl.weights.reading import read_weights
from sdxl.weights.resize import resize_weights
from sdxl.weights.trained import TrainedWeights
from sdxl.weights.webui import webui_file
from trainer.config import TrainConfig

SUBJECT = "robot"
TRAINED_RANK = 32
RANKS = (16, 8, 4, 2, 1)
_SCORES_HEAD = (
    "| seed | resized to | web UI file, KB | match, dB | share of the gain | setting |\n"
    "|---|---|---|---|---|---|\n"
)


def main(argv: list[str]) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="script/bench sizes", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--steps", type=int, default=TRAIN["max_train_steps"])
    parser.add_argument("--full-size", action="store_true", help="train nothing")
    parser.add_argument("-o", "--out", type=Path, help="PNG: a row of pictures for each file")
    options = parser.parse_args(argv)
    configure_logging()
    logging.getLogger().setLevel(logging.WARNING)
    if not options.full_size:
        rows = _write_scores(options.seeds, options.steps)
        if options.out:
            Image.fromarray(np.concatenate(rows)).save(options.out)
    _write_full_sizes()
    return 0


def resized_files(weights: TrainedWeights) -> Iterator[tuple[str, TrainedWeights]]:
    """Yield the weights as trained, smaller by rank and by size, and without any LoRA."""
    yield f"rank {TRAINED_RANK}, as trained", weights
    for rank in RANKS:
        smaller = resize_weights(weights, rank=rank)
        yield f"rank {rank}", smaller
        size = len(webui_file(smaller))
        yield f"the size of rank {rank}", resize_weights(weights, max_bytes=size)
    yield "embeddings alone", replace(weights, lora={})


def _write_scores(seeds: Sequence[int], steps: int) -> list[np.ndarray]:
    """Train, resize, score and print; return the pictures, a row for each file."""
    bench = SubjectBench(SUBJECT)
    base, pictures = bench.score("TOK", ())
    rows = [_row(pictures)]
    sys.stdout.write(
        f"base {base.match:.2f} dB, true views {bench.judge.ceiling():.2f} dB; {steps} steps\n\n"
        f"{_SCORES_HEAD}"
    )
    for seed in seeds:
        trained: Score | None = None
        for name, weights in resized_files(_train(bench, seed, steps)):
            score, pictures = _score(bench, weights)
            rows.append(_row(pictures))
            trained = trained or score
            share = (score.match - base.match) / (trained.match - base.match)
            kilobytes = f"{len(webui_file(weights)) / 1000:.1f}" if weights.has_lora else ""
            sys.stdout.write(
                f"| {seed} | {name} | {kilobytes} | {score.match:.2f} | {share:.0%} "
                f"| {score.setting:.2f} |\n"
            )
            sys.stdout.flush()
    return rows


def _train(bench: SubjectBench, seed: int, steps: int) -> TrainedWeights:
    settings = {name: value for name, value in TRAIN.items() if name != "base_model"}
    changes = {"seed": seed, "max_train_steps": steps, "lora_rank": TRAINED_RANK}
    config = TrainConfig(**settings | changes)
    with tempfile.TemporaryDirectory() as out_dir:
        photos = training_pictures("sample", SUBJECT, Path(out_dir))
        archive, _ = bench.train(config, photos, Path(out_dir))
        return read_weights(archive)


def _score(bench: SubjectBench, weights: TrainedWeights) -> tuple[Score, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "w.tar")
        save_weights(weights, archive)
        with bench.applied(archive) as concepts:
            return bench.score("TOK", concepts)


def _row(pictures: np.ndarray) -> np.ndarray:
    return np.concatenate(list(pictures), axis=1)


def _write_full_sizes() -> None:
    """Print the sizes, in MB, of a full-size SDXL's files without the settings in their header."""
    ranks = (TRAINED_RANK, *RANKS)
    columns = "".join(f" {rank} |" for rank in ranks)
    sys.stdout.write(
        f"\n| lora_target, full-size SDXL | layers |{columns}\n{'|---' * (len(ranks) + 2)}|\n"
    )
    for target in get_args(LoraTarget):
        shapes = full_size_shapes(target)
        sizes = [len(webui_file(random_weights(shapes, rank))) / 1e6 for rank in ranks]
        cells = "".join(f" {size:.2f} |" for size in sizes)
        sys.stdout.write(f"| {target} | {len(shapes)} |{cells}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
