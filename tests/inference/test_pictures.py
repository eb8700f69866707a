import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.pictures import fit, fit_mask, output_size, read_image, read_mask
from tests.preprocess.files import encode, picture

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


@pytest.fixture
def upload(tmp_path: Path):
    def upload(image: Image.Image | bytes, kind: str = "PNG", **options: object) -> Path:
        path = tmp_path / "upload"  # Cog's downloads may have no ending
        path.write_bytes(image if isinstance(image, bytes) else encode(image, kind, **options))
        return path

    return upload


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference, 0 to 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def test_an_image_is_read_as_one_sees_it_and_the_log_says_what_was_done(upload, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = picture(80, 48)
    seen.putalpha(Image.new("L", seen.size, 255))
    seen.paste((0, 0, 0, 0), (0, 0, 8, 8))
    with caplog.at_level(logging.INFO):
        image = read_image(upload(seen.transpose(Image.Transpose.ROTATE_90), exif=exif))
    assert (image.mode, image.size) == ("RGB", (80, 48))
    assert image.getpixel((0, 0)) == WHITE
    assert "image: turned upright (EXIF)." in caplog.text
    assert "image: transparent parts put on white." in caplog.text


@pytest.mark.parametrize("name", ["image", "mask"])
def test_what_is_no_picture_is_refused_by_its_inputs_name(upload, name: str):
    content = encode(Image.effect_noise((64, 64), 90).convert("RGB"), "PNG")
    for broken in (b"<html>no picture</html>", content[: len(content) // 2]):
        path = upload(broken)
        with pytest.raises(ValueError, match=rf"{name} cannot be used: it is (damaged|not a pict)"):
            read_image(path) if name == "image" else read_mask(path, (64, 64))


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(upload):
    content = bytearray(encode(picture(8, 8), "BMP"))
    content[18:26] = (30_000).to_bytes(4, "little") * 2
    with pytest.raises(ValueError, match="image cannot be used: it has 30000x30000 pixels"):
        read_image(upload(bytes(content)))


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (Image.new("1", (8, 8), 1), 255),
        (Image.new("L", (8, 8), 90), 90),
        (Image.new("RGB", (8, 8), WHITE), 255),
        (Image.new("RGB", (8, 8), RED), 76),
        (Image.new("RGBA", (8, 8), (*WHITE, 128)), 128),
        (Image.new("I;16", (8, 8), 65535), 255),
    ],
    ids=["1-bit", "gray", "RGB", "color", "alpha", "16-bit"],
)
def test_a_mask_counts_by_its_brightness_and_opacity(upload, stored: Image.Image, shown: int):
    mask = read_mask(upload(stored, "PNG"), (8, 8))
    assert mask.mode == "L"
    assert mask.getextrema() == (shown, shown)


def test_white_on_a_transparent_ground_is_repainted_and_the_ground_is_not(upload):
    stored = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    stored.paste((255, 255, 255, 255), (0, 0, 4, 8))
    mask = read_mask(upload(stored), (8, 8))
    assert (mask.getpixel((0, 0)), mask.getpixel((7, 7))) == (255, 0)


@pytest.mark.parametrize("color", [(*BLACK, 255), (*WHITE, 0), (*BLACK, 0)])
def test_a_mask_with_nothing_to_repaint_is_refused(upload, color: tuple):
    with pytest.raises(
        ValueError,
        match=r"mask (has nothing to repaint: .* Paint white|.*every pixel of it is transparent)",
    ):
        read_mask(upload(Image.new("RGBA", (8, 8), color)), (8, 8))


def test_a_mask_of_another_size_is_stretched_to_its_image_and_the_log_says_so(upload, caplog):
    stored = Image.new("L", (32, 32), 0)
    stored.paste(255, (16, 0, 32, 32))
    mask = read_mask(upload(stored), (128, 64))
    assert mask.size == (128, 64)
    assert mask.getbbox() == pytest.approx((63, 0, 128, 64), abs=4)
    assert "mask has 32x32 pixels and image 128x64" in caplog.text


@pytest.mark.parametrize(
    ("image", "width", "height", "expected"),
    [
        ((500, 300), 640, 512, (640, 512)),
        ((1000, 500), 512, None, (512, 256)),
        ((1000, 500), None, 512, (1024, 512)),
        ((1000, 500), None, None, (1000, 496)),
        ((1024, 1024), None, None, (1024, 1024)),
        ((1448, 1448), None, None, (1448, 1448)),
        ((1456, 1456), None, None, (1024, 1024)),
        ((6000, 4000), None, None, (1256, 840)),
        ((40, 20), None, None, (128, 64)),
        ((10, 3000), None, None, (64, 2048)),
        ((3000, 500), None, None, (2048, 344)),
        ((100, 1000), 1024, None, (1024, 2048)),
        ((1000, 10), 512, None, (512, 64)),
    ],
)
def test_the_output_has_the_size_asked_for_or_the_images_own(image, width, height, expected):
    assert output_size(image, width, height, 1024) == expected


def test_the_log_says_when_the_size_is_not_the_images(caplog):
    with caplog.at_level(logging.INFO):
        output_size((512, 512), None, None, 1024)
        assert caplog.text == ""
        output_size((513, 512), None, None, 1024)
    assert "The image has 513x512 pixels, the output 512x512." in caplog.text


def test_another_shape_is_cropped_in_the_middle_not_distorted(caplog):
    image = Image.new("RGB", (300, 100), RED)
    image.paste((0, 0, 255), (100, 0, 200, 100))
    with caplog.at_level(logging.INFO):
        fitted = fit(image, (64, 64))
    assert fitted.size == (64, 64)
    assert np.abs(np.asarray(fitted, int)[:, 4:-4] - (0, 0, 255)).max() < 4
    assert "The image's shape, 300x100, is not the output's, 64x64" in caplog.text


def test_image_and_mask_stay_aligned_when_cropped():
    mask = Image.new("L", (300, 200), 0)
    mask.paste(255, (110, 60, 170, 90))
    image = Image.merge("RGB", [mask] * 3)
    fitted = np.asarray(fit(image, (64, 72)).convert("L"), int)
    assert np.abs(fitted - np.asarray(fit_mask(mask, (64, 72)), int)).mean() < 2


def test_a_mask_that_is_cropped_away_is_refused():
    mask = Image.new("L", (300, 100), 0)
    mask.paste(255, (0, 0, 40, 100))
    with pytest.raises(ValueError, match="mask is white only where the image is cropped"):
        fit_mask(mask, (64, 64))
