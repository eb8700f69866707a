"""Writes the pictures of the sample subjects, as `python -m samples.pocket.photograph`."""

import argparse
import csv
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from samples.pocket import captions
from samples.pocket.render import Render, subject_scene
from samples.pocket.settings import SETTINGS
from samples.pocket.styles import sticker_scene
from samples.pocket.toys import Toy

logger = logging.getLogger(__name__)

SAMPLES = Path(__file__).resolve().parents[1]
SIZE = 512
COUNT = 10
# Two pictures in each of five settings; a tuned model is then asked for the three others.
PHOTOGRAPHED = ("grass", "table", "floor", "desert", "night")
UNSEEN = tuple(name for name in SETTINGS if name not in PHOTOGRAPHED)
CAPTION_FILE = "captions.csv"

STICKERS = (
    Toy("ball", "red", "white", "striped"),
    Toy("cube", "yellow"),
    Toy("cone", "purple", "white", "dotted"),
    Toy("cylinder", "orange"),
    Toy("ring", "pink"),
    Toy("star", "yellow", "orange", "striped"),
    Toy("pyramid", "green"),
    Toy("heart", "red"),
    Toy("mushroom", "orange", "white", "dotted"),
    Toy("tree", "green"),
)
_SEEDS = {"robot": 3, "monster": 4, "sticker": 5}


def _setting(index: int) -> str:
    return PHOTOGRAPHED[index % len(PHOTOGRAPHED)]


def _render(name: str) -> list[Render]:
    rng = np.random.default_rng(_SEEDS[name])
    if name == "sticker":
        return [sticker_scene(rng, toy, _setting(i), SIZE) for i, toy in enumerate(STICKERS)]
    return [subject_scene(rng, name, _setting(i), SIZE) for i in range(COUNT)]


def _save(folder: Path, index: int, picture: np.ndarray) -> str:
    """Every second picture is a JPEG, as in most people's collections."""
    image = Image.fromarray(picture)
    if index % 2:
        name = f"{index + 1:02d}.jpg"
        image.save(folder / name, quality=92)
    else:
        name = f"{index + 1:02d}.png"
        image.save(folder / name, optimize=True)
    return name


def _sticker_caption(render: Render) -> str:
    toy = render.scene.toys[0]
    words = toy.color
    if toy.pattern != "plain":
        words = f"{toy.color} and {toy.second} {toy.pattern}"
    article = "an" if words[0] in "aeiou" else "a"
    place = captions.PLACES[render.scene.where][0]
    return f"{article} {words} {toy.kind} {place} in the style of TOK"


def _write_captions(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_file", "caption"))
        writer.writerows(rows)


def photograph(name: str, folder: Path, caption: Callable[[Render], str] | None = None) -> None:
    """Writes the ten pictures of a sample and, given a way to word them, its caption file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, render in enumerate(_render(name)):
        file = _save(folder, index, render.picture)
        rows.append((file, caption(render) if caption else ""))
    if caption:
        _write_captions(folder / CAPTION_FILE, rows)
    logger.info("wrote %s", folder.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=SAMPLES, help="folder of the samples")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in _SEEDS:
        caption = _sticker_caption if name == "sticker" else None
        photograph(name, options.output / name, caption)


if __name__ == "__main__":
    main()
