import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from inference.output import OUTPUT_FORMATS, OutputSettings, save_pictures
from tests.preprocess.files import picture

TEXT = "ein Bär, 熊 🐻\nNegative prompt: rain\nSteps: 30, Sampler: Euler a, Seed: 7"
SIGNATURES = {"png": b"\x89PNG", "webp": b"RIFF", "jpg": b"\xff\xd8\xff"}


def saved(folder: Path, output_format: str, text: str | None = None, quality: int = 90) -> Path:
    settings = OutputSettings(output_format=output_format, output_quality=quality)
    (path,) = save_pictures([picture()], folder, settings, None if text is None else [text])
    return path


def user_comment(path: Path) -> bytes | None:
    with Image.open(path) as image:
        return image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_pictures_are_saved_in_their_order_and_format(tmp_path: Path, output_format: str):
    colors = [(200, 0, 0), (0, 0, 200)]
    pictures = [picture(64, 40, color=color) for color in colors]
    paths = save_pictures(pictures, tmp_path, OutputSettings(output_format=output_format))
    assert [path.name for path in paths] == [f"out-0.{output_format}", f"out-1.{output_format}"]
    for path, color in zip(paths, colors, strict=True):
        assert path.read_bytes().startswith(SIGNATURES[output_format])
        with Image.open(path) as image:
            assert image.size == (64, 40)
            assert np.abs(np.asarray(image, int) - color).max() < 12


def test_png_is_lossless_at_every_quality(tmp_path: Path):
    worst = saved(tmp_path, "png", quality=1).read_bytes()
    with Image.open(tmp_path / "out-0.png") as image:
        assert image.tobytes() == picture().tobytes()
    assert saved(tmp_path, "png", quality=100).read_bytes() == worst


@pytest.mark.parametrize("output_format", ["webp", "jpg"])
def test_a_higher_quality_is_a_larger_file(tmp_path: Path, output_format: str):
    sizes = [saved(tmp_path, output_format, quality=q).stat().st_size for q in (10, 90)]
    assert sizes[0] < sizes[1]


def test_png_carries_its_settings_as_the_text_parameters(tmp_path: Path):
    with Image.open(saved(tmp_path, "png", TEXT)) as image:
        assert image.info["parameters"] == TEXT


@pytest.mark.parametrize("output_format", ["webp", "jpg"])
def test_webp_and_jpg_carry_their_settings_as_the_users_comment(tmp_path: Path, output_format: str):
    path = saved(tmp_path, output_format, TEXT)
    comment = b"UNICODE\0" + TEXT.encode("utf-16-be")
    assert user_comment(path) == comment
    undefined = 7  # the type without which piexif, and so AUTOMATIC1111, refuses the comment
    assert struct.pack(">HHI", 0x9286, undefined, len(comment)) in path.read_bytes()


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
def test_each_picture_carries_its_own_settings_and_without_texts_none(
    tmp_path: Path, output_format: str
):
    settings = OutputSettings(output_format=output_format)
    with_texts = save_pictures([picture(), picture()], tmp_path, settings, ["seed 1", "seed 2"])
    first, second = (path.read_bytes() for path in with_texts)
    assert first != second
    bare = saved(tmp_path, output_format)
    with Image.open(bare) as image:
        assert "parameters" not in image.info
        assert "exif" not in image.info


def test_settings_too_long_for_a_jpg_are_left_out_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        path = saved(tmp_path, "jpg", "word " * 8000)
    assert user_comment(path) is None
    assert "The settings are too long for a jpg" in caplog.text
    assert user_comment(saved(tmp_path, "webp", "word " * 8000))


def test_the_longest_settings_that_fit_are_in_the_jpg(tmp_path: Path):
    assert user_comment(saved(tmp_path, "jpg", "a" * 32_700))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_format": "gif"}, "output_format must be one of png, webp, jpg, got 'gif'"),
        ({"output_quality": 0}, "output_quality must be from 1 to 100, got 0"),
        ({"output_quality": 101}, "output_quality must be from 1 to 100, got 101"),
    ],
)
def test_other_formats_and_qualities_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        OutputSettings(**changes)
