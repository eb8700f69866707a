"""The sample subjects' folders, and the script that zips them."""

import csv
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from samples.pocket import photograph

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"
NAMES = ("robot", "monster", "sticker")


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in {".png", ".jpg"})


@pytest.mark.parametrize("name", NAMES)
def test_ten_pictures_of_512_in_two_formats(name):
    paths = _pictures(SAMPLES / name)
    assert len(paths) == 10
    formats = set()
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert image.size == (512, 512)
            formats.add(image.format)
    assert formats == {"PNG", "JPEG"}
    assert (SAMPLES / name / "README.md").exists()
    assert sum(p.stat().st_size for p in (SAMPLES / name).iterdir()) < 2.5e6


def test_every_sticker_has_a_caption_with_the_token():
    with (SAMPLES / "sticker" / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_file"] for row in rows] == [p.name for p in _pictures(SAMPLES / "sticker")]
    assert all("TOK" in row["caption"].split() for row in rows)


def test_pictures_are_what_the_code_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(photograph, "COUNT", 1)
    photograph.photograph("robot", tmp_path)
    with Image.open(tmp_path / "01.png") as made, Image.open(SAMPLES / "robot/01.png") as kept:
        assert made.tobytes() == kept.tobytes()


@pytest.mark.parametrize(("name", "count"), [("robot", 10), ("sticker", 11)])
def test_zip_sample(tmp_path, name, count):
    archive = tmp_path / "out.zip"
    script = [sys.executable, str(ROOT / "script/zip-sample"), name, "-o", str(archive)]
    subprocess.run(script, check=True, capture_output=True)
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        assert opened.testzip() is None
    assert len(names) == count
    assert "README.md" not in names


def test_zip_sample_refuses_an_unknown_name(tmp_path):
    script = [sys.executable, str(ROOT / "script/zip-sample"), "nothing"]
    result = subprocess.run(script, check=False, capture_output=True, cwd=tmp_path)
    assert result.returncode == 1
    assert b"no pictures" in result.stderr
