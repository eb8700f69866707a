"""Does training teach the subject? `script/bench fidelity [SUBJECT] [--seeds 0 1 2]`.

Trains a sample subject on the pocket base at several training seeds with the demo's settings and
compares the result with the base: subject match and setting adherence over 4 prompts x 4 seeds
(three of the settings were never trained), and the loss on 32 unseen renders at fixed noise.
`samples/pocket/judges.py` says what these figures can tell and what they cannot.
"""

import argparse
import logging
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from bench.learning.pictures import training_pictures
from bench.learning.subject import Score, SubjectBench
from script.local_demo.settings import TRAIN
from sdxl.logs import configure_logging
from trainer.config import TrainConfig

# the bars of a healthy build, by which the exit code is decided
LEAST_GAIN_DB, LEAST_SETTING, MOST_LOSS_RATIO = 3.0, 0.9, 0.8


def main(argv: list[str]) -> int:
    """Print the table; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="script/bench fidelity", description=__doc__)
    parser.add_argument("subject", nargs="?", default="robot", choices=("robot", "monster"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("-o", "--out", type=Path, help="PNG: a row of pictures for each model")
    options = parser.parse_args(argv)
    configure_logging()
    logging.getLogger().setLevel(logging.WARNING)

    bench = SubjectBench(options.subject)
    floor, ceiling = bench.judge.floor(), bench.judge.ceiling()
    sys.stdout.write(f"toys of the base's world {floor:.2f} dB, true views {ceiling:.2f} dB\n")
    rows = []
    base, pictures = bench.score("TOK", ())
    _write(f"base, {options.subject}", base, 0.0, rows, pictures)
    tuned = []
    for seed in options.seeds:
        score, pictures, seconds = _train(bench, options.subject, seed)
        _write(f"tuned, seed {seed}", score, seconds, rows, pictures)
        tuned.append(score)
    if options.out:
        Image.fromarray(np.concatenate(rows)).save(options.out)
    gain = statistics.mean(score.match for score in tuned) - floor
    setting = statistics.mean(score.setting for score in tuned)
    ratio = statistics.mean(score.held_out_loss for score in tuned) / base.held_out_loss
    healthy = gain >= LEAST_GAIN_DB and setting >= LEAST_SETTING and ratio <= MOST_LOSS_RATIO
    sys.stdout.write(
        f"gain {gain:+.2f} dB over the base's toys (bar {LEAST_GAIN_DB}), setting {setting:.2f} "
        f"(bar {LEAST_SETTING}), held-out loss {ratio:.2f} of the base's (bar {MOST_LOSS_RATIO}): "
        f"{'healthy' if healthy else 'NOT healthy'}\n"
    )
    return 0 if healthy else 1


def _train(bench: SubjectBench, subject: str, seed: int) -> tuple[Score, np.ndarray, float]:
    """Train at one seed with the demo's settings; judge the archive that comes out."""
    settings = {name: value for name, value in TRAIN.items() if name != "base_model"}
    config = TrainConfig(**settings | {"seed": seed})
    with tempfile.TemporaryDirectory() as out_dir:
        photos = training_pictures("sample", subject, Path(out_dir))
        archive, seconds = bench.train(config, photos, Path(out_dir))
        with bench.applied(archive) as concepts:
            return (*bench.score("TOK", concepts), seconds)


def _write(
    name: str, score: Score, seconds: float, rows: list[np.ndarray], pictures: np.ndarray
) -> None:
    rows.append(np.concatenate(list(pictures), axis=1))
    sys.stdout.write(
        f"{name:16s} match {score.match:.2f} dB  setting {score.setting:.2f}  "
        f"held-out loss {score.held_out_loss:.4f}  {seconds:.0f} s\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
