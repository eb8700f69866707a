"""What does each mode of prediction show? `script/bench modes [-o docs/modes.jpg]`.

Trains the demo's settings on two sample subjects with the pocket base, and draws a contact sheet of
every sampler and every mode; `docs/modes.md` says what is to be seen.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from bench.learning.subject import SubjectBench
from bench.serving.modes import ModePictures
from bench.serving.sheet import draw_sheet
from inference.fine_tunes import FineTune
from inference.generator import PictureGenerator, load_for_pictures
from inference.pictures import read_image
from samples.pocket.photograph import SAMPLES
from script.local_demo.settings import PREDICT, TRAIN
from sdxl.downloads import POCKET, resolve_base
from sdxl.logs import configure_logging
from sdxl.weights.reading import read_weights
from trainer.config import TrainConfig

SUBJECTS = ("robot", "monster")
SHEET = Path(__file__).parent.parent / "docs" / "modes.jpg"


def main(argv: list[str]) -> int:
    """Train, draw, and print what was kept of the picture that was painted into."""
    parser = argparse.ArgumentParser(prog="script/bench modes", description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=SHEET)
    parser.add_argument("--steps", type=int, default=TRAIN["max_train_steps"])
    parser.add_argument(
        "--archives", type=Path, nargs=2, help="trained ones of both subjects: train nothing"
    )
    options = parser.parse_args(argv)
    configure_logging()
    logging.getLogger().setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="bench-modes-") as folder:
        archives = options.archives or [
            train(subject, options.steps, Path(folder, subject)) for subject in SUBJECTS
        ]
        subject, other = (
            FineTune(name=name, weights=read_weights(path))
            for name, path in zip(SUBJECTS, archives, strict=True)
        )
    generator = PictureGenerator(load_for_pictures(resolve_base("pocket")), lambda: POCKET)
    photograph = read_image(SAMPLES / SUBJECTS[0] / "01.png")
    pictures = ModePictures(generator, subject, other, photograph, PREDICT["num_inference_steps"])
    draw_sheet(pictures.rows(), options.out)
    sys.stdout.write(
        f"{options.out}: {options.out.stat().st_size / 1000:.0f} KB; inpainting changed the pixels "
        f"that it was to keep by at most {pictures.unmasked_difference} of 255\n"
    )
    return 0


def train(subject: str, steps: int, folder: Path) -> Path:
    """Train on a sample subject as the demo does, in a new folder; return the archive."""
    folder.mkdir()
    settings = {name: value for name, value in TRAIN.items() if name != "base_model"}
    config = TrainConfig(**settings | {"max_train_steps": steps})
    archive, _ = SubjectBench(subject).train(config, SAMPLES / subject, folder)
    return archive


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
