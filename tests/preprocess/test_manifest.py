import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from preprocess.manifest import Manifest, TrainingExample

EXAMPLE = TrainingExample(
    example_id="01-a",
    image_path="images/01-a.png",
    mask_path=None,
    caption='a "quoted" TOK,\u2028 on two lines',
    source_name="Gr\u00f6\u00dfe/a.jpg",
    original_size=(300, 400),
    crop_top_left=(0, 50),
    target_size=(64, 64),
    notes=("resized", "cropped"),
)
MASKED = dataclasses.replace(EXAMPLE, example_id="02-b", mask_path="masks/02-b.png", notes=())


def test_a_saved_manifest_is_loaded_unchanged(tmp_path: Path) -> None:
    manifest = Manifest(directory=tmp_path, examples=(EXAMPLE, MASKED))
    path = manifest.save()
    assert path == tmp_path / "manifest.jsonl"
    assert len(path.read_text("utf-8").strip().split("\n")) == 2
    assert Manifest.load(tmp_path) == manifest


def test_a_missing_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no manifest\.jsonl: prepare the pictures first"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("{", "", "line 1: not JSON"),
        ('"caption"', '"title"', "line 1: expected the fields caption, .*; got .*title"),
        ("[300, 400]", "[300]", "original_size must be two whole numbers, got "),
        ("[300, 400]", '["300", 400]', "original_size must be two whole numbers, got "),
        ('"images/01-a.png"', "7", "image_path must be text, got 7"),
        ("null", "7", "mask_path must be text, got 7"),
        ('["resized", "cropped"]', '"resized"', "notes must be a list of texts, got 'resized'"),
        ('["resized", "cropped"]', "[1]", "notes must be a list of texts, got "),
    ],
)
def test_a_spoiled_line_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = Manifest(directory=tmp_path, examples=(EXAMPLE,)).save()
    path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8")
    with pytest.raises(ValueError, match=rf"manifest\.jsonl, line 1: .*|{says}") as raised:
        Manifest.load(tmp_path)
    assert raised.match(says)


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    tmp_path.joinpath("manifest.jsonl").write_text("[]\n")
    with pytest.raises(ValueError, match="line 1: expected an object"):
        Manifest.load(tmp_path)


def test_config_and_manifest_load_neither_torch_nor_pillow() -> None:
    code = (
        "import sys, preprocess.config, preprocess.manifest;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'PIL', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_preparing_without_models_loads_no_torch() -> None:
    code = "import sys, preprocess.prepare; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
