"""The contact sheet of `script/bench modes`, of a model that was not trained."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.serving.modes import ASPECT_RATIOS, LORA_SCALES, STRENGTHS, ModePictures
from bench.serving.sheet import Cell, Row, draw_sheet
from bench.serving.weights import lora_fine_tune
from inference.generator import PictureGenerator
from inference.schedulers import SCHEDULERS
from tests.tiny_sdxl import load_tiny_sdxl


@pytest.fixture(scope="module")
def pictures(tiny_sdxl_dir: Path) -> ModePictures:
    models = load_tiny_sdxl(tiny_sdxl_dir)
    fine_tunes = [lora_fine_tune(models, seed) for seed in range(2)]
    generator = PictureGenerator(models, lambda: tiny_sdxl_dir)
    photograph = Image.linear_gradient("L").convert("RGB")
    return ModePictures(generator, *fine_tunes, photograph=photograph, steps=4)


@pytest.fixture(scope="module")
def rows(pictures: ModePictures) -> dict[str, list[Cell]]:
    return {row.label: list(row.cells) for row in pictures.rows()}


def test_there_is_a_row_of_every_mode_and_a_picture_of_every_value(rows: dict[str, list[Cell]]):
    captions = {
        label.split(",")[0].split("\n")[0]: [c.caption for c in cells]
        for label, cells in rows.items()
    }
    assert captions["scheduler"] + captions[""] == list(SCHEDULERS)
    assert captions["image to image"] == ["image", *(f"{value:g}" for value in STRENGTHS)]
    assert captions["lora_scale"] == [f"{value:g}" for value in LORA_SCALES]
    assert [caption.split(" ")[0] for caption in captions["aspect_ratio"]] == list(ASPECT_RATIOS)
    rest = {"inpainting", "refine", "guidance_rescale", "extra_lora", "prompt weights:"}
    assert rest < captions.keys()


def test_what_inpainting_is_to_keep_is_equal_and_shown_black(
    pictures: ModePictures, rows: dict[str, list[Cell]]
):
    assert pictures.unmasked_difference == 0
    cells = {cell.caption: np.asarray(cell.picture) for cell in rows["inpainting"]}
    assert not cells["where it differs"][cells["mask"] == 0].any()
    assert cells["where it differs"].any()


def test_pictures_of_one_row_differ(rows: dict[str, list[Cell]]):
    for label in ("lora_scale", "guidance_rescale"):
        made = [cell.picture.tobytes() for cell in rows[label]]
        assert len(set(made)) == len(made), label


def test_a_sheet_has_every_picture_below_its_caption_and_beside_its_label(tmp_path: Path):
    wide, tall = Image.new("RGB", (60, 20), "red"), Image.new("RGB", (20, 60), "blue")
    long = "a caption that is wider than its picture"
    sheet_rows = [
        Row("one", [Cell("wide", wide), Cell("tall", tall)]),
        Row("two", [Cell(long, tall)]),
    ]
    draw_sheet(sheet_rows, tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        pixels = np.asarray(sheet).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1:].max(axis=2) < 60)
    blue = (pixels[..., 2] > 200) & (pixels[..., :2].max(axis=2) < 60)
    assert red.sum() == pytest.approx(60 * 20, rel=0.15)
    assert blue.sum() == pytest.approx(2 * 20 * 60, rel=0.15)
    assert sheet_rows[1].width_px > sheet_rows[0].width_px  # the caption takes its room
    assert np.nonzero(blue.any(axis=1))[0][-1] < len(pixels)
