"""A report as a user gets it, with pictures that are in this repository."""

import math
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance

from preprocess.manifest import Manifest, TrainingExample
from trainer.report import Preview, TrainReport

ROBOT = Path(__file__).parents[2] / "samples" / "robot"
NUM_STEPS, PIVOT_STEP = 400, 200
PLACES = ("on the grass", "on the beach", "in the snow", "at night")
COURSE_STEPS = (80, 160, 240, 320)


def photo(number: int, side_px: int = 256) -> Image.Image:
    (path,) = ROBOT.glob(f"{number:02d}.*g")
    with Image.open(path) as picture:
        return picture.convert("RGB").resize((side_px, side_px))


def make_manifest_of_robots(directory: Path) -> Manifest:
    examples = []
    for number in range(1, 11):
        photo(number).save(directory / f"{number}.png")
        mask = Image.new("L", (256, 256), 0)
        ImageDraw.Draw(mask).ellipse((40, 20, 216, 236), fill=255)
        mask.save(directory / f"{number}-mask.png")
        examples.append(
            TrainingExample(
                example_id=str(number),
                image_path=f"{number}.png",
                mask_path=f"{number}-mask.png" if number <= 2 else None,
                caption=f"a photo of TOK, {PLACES[number % 4]}, seen from the front",
                source_name=f"holiday/IMG_20240{number:02d}_{'0' * 40}.jpg",
                original_size=(512, 512),
                crop_top_left=(0, 0),
                target_size=(256, 256),
                notes=("enlarged from 512 to 768 px: sharper pictures train better",)[: number % 2],
            )
        )
    return Manifest(directory=directory, examples=tuple(examples))


def make_preview(seed: int) -> Preview:
    """Pictures that come out of the gray, as those of a training come out of the base."""
    picture = photo(seed + 1)
    shades = [ImageEnhance.Color(picture).enhance(i / 5) for i in range(6)]
    course = tuple(zip(COURSE_STEPS, shades[1:5], strict=True))
    return Preview(f"a photo of TOK {PLACES[seed]}", seed, shades[0], shades[5], course)


def make_report(directory: Path) -> TrainReport:
    """A run of 400 steps with everything that a report can show; its pictures in `directory`."""
    noise = random.Random(0)
    steps = range(NUM_STEPS)
    return TrainReport(
        manifest=make_manifest_of_robots(directory),
        triggers=("TOK",),
        base_model="stabilityai/stable-diffusion-xl-base-1.0",
        settings={"lora_rank": 32, "caption_prefix": "a photo of TOK, ", "a_" * 40: "x" * 200},
        losses=[0.08 + 0.1 * math.exp(-s / 120) + noise.gammavariate(2, 0.03) for s in steps],
        learning_rates={
            "placeholder_embeddings": [3e-4 * min(1, s / 50) * (s < PIVOT_STEP) for s in steps],
            "unet_lora": [1e-4 * min(1, s / 50) * (1 - s / NUM_STEPS) for s in steps],
        },
        pivot_step=PIVOT_STEP,
        previews=tuple(map(make_preview, range(4))),
        class_pictures=tuple(map(photo, range(1, 9))),
        class_prompt="a photo of a toy",
        notices=("resolution 128 is far from the 1024 px that this base model was trained at.",),
        seconds={"load the base model": 3.21, "train": 751.0, "sample pictures after": 12.0},
        archive_bytes=23_400_000,
    )
