"""One training of `script/bench methods`, measured; and what its figures are compared with."""

import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from bench.learning.pictures import ONE_SETTING, training_pictures
from bench.learning.results import Reference, Result, Shown
from bench.learning.subject import ASKED, PICTURE_SEEDS, SubjectBench
from bench.learning.variants import CLASS_WORDS, SUBJECT, Variant
from samples.pocket.render import subject_scene
from sdxl.concept import Concept
from sdxl.weights.archive import LORA, UNET

CLASS_SEEDS = PICTURE_SEEDS[:2]
PLAIN_SEEDS = (200, 201, 202, 203, 204, 205, 206, 207)
_TRUE_VIEW_SEED = 17


def train_and_measure(
    bench: SubjectBench, variant: Variant, seed: int, base: Shown
) -> tuple[Result, Shown]:
    """Train a variant at a seed; return its figures and pictures.

    Args:
        bench: The base, untouched.
        variant: What to train.
        seed: Of the training.
        base: The pictures of the base.
    """
    with tempfile.TemporaryDirectory() as photos_dir, tempfile.TemporaryDirectory() as out_dir:
        photos = training_pictures(variant.pictures, SUBJECT, Path(photos_dir))
        archive, seconds = bench.train(variant.config(seed), photos, Path(out_dir))
        archive_bytes, weights_bytes = archive.stat().st_size, _weights_bytes(archive)
        with bench.applied(archive) as concepts:
            figures, shown = _look(bench, concepts)
    difference = shown["class"].astype(np.float32) - base["class"].astype(np.float32)
    result = Result(
        **figures,
        class_difference=float(np.abs(difference).mean()),
        archive_bytes=archive_bytes,
        weights_bytes=weights_bytes,
        seconds=seconds,
        num_threads=torch.get_num_threads(),
    )
    return result, shown


def measure_reference(bench: SubjectBench) -> tuple[Reference, Shown, np.ndarray]:
    """Return figures and pictures of the base, and true views, as many as it has pictures."""
    figures, shown = _look(bench, ())
    reference = Reference(floor=bench.judge.floor(), ceiling=bench.judge.ceiling(), **figures)
    rng = np.random.default_rng(_TRUE_VIEW_SEED)
    places = [place for place in ASKED for _ in PICTURE_SEEDS]
    true_views = np.stack([subject_scene(rng, SUBJECT, place).picture for place in places])
    return reference, shown, true_views


def _look(bench: SubjectBench, concepts: Sequence[Concept]) -> tuple[dict, Shown]:
    """Return what `Result` and `Reference` have in common, and the pictures."""
    score, pictures = bench.score("TOK", concepts)
    plain_prompts = ["a photo of TOK"] * len(PLAIN_SEEDS)
    plain = bench.pictures(plain_prompts, concepts, PLAIN_SEEDS)
    of_class, places = bench.pictures_in_places(CLASS_WORDS, concepts, CLASS_SEEDS)
    figures = {
        "match": score.match,
        "setting": score.setting,
        "held_out_loss": score.held_out_loss,
        "band_losses": bench.band_losses("TOK", concepts),
        "table_share": bench.judge.setting_accuracy(plain, [ONE_SETTING] * len(plain)),
        "class_match": bench.match(of_class, places),
    }
    return figures, {"subject": pictures, "class": of_class, "plain": plain}


def _weights_bytes(archive: Path) -> int:
    """Return the size of the LoRA or the U-Net in it; 0 for textual inversion alone."""
    with tarfile.open(archive) as members:
        return sum(info.size for info in members if info.name in (LORA, UNET))
