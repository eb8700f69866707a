from pathlib import Path

from PIL import Image

from script.local_cog.schema import load_schema
from script.local_demo.grid import Row, draw_grid
from script.local_demo.settings import PREDICT, SUBJECT, TRAIN
from tests.script.conftest import ROOT


def test_the_settings_are_inputs_of_the_doors() -> None:
    components = load_schema(ROOT, "train")["components"]["schemas"]
    assert set(TRAIN) <= set(components["TrainingInput"]["properties"])
    assert set(PREDICT) <= set(components["Input"]["properties"])
    assert (ROOT / "samples" / SUBJECT).is_dir()


def test_the_grid_shows_every_picture_in_its_row(tmp_path: Path) -> None:
    colors = ["red", "lime", "blue"]
    for color in colors:
        Image.new("RGB", (128, 64), color).save(tmp_path / f"{color}.png")
    red, lime, blue = (tmp_path / f"{color}.png" for color in colors)
    draw_grid([Row("one", [red, lime], ["a", "b"]), Row("two", [blue], ["c"])], tmp_path / "g.png")
    with Image.open(tmp_path / "g.png") as grid:
        pixels = {color for _, color in grid.getcolors(1 << 20) or []}
        middle = grid.height // 2
        top = {color for _, color in grid.crop((0, 0, grid.width, middle)).getcolors(1 << 20) or []}
    assert {(255, 0, 0), (0, 255, 0), (0, 0, 255)} <= pixels
    assert {(255, 0, 0), (0, 255, 0)} <= top
    assert (0, 0, 255) not in top
