import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from diffusers.pipelines.stable_diffusion_xl.watermark import WATERMARK_BITS
from numpy.typing import NDArray
from PIL import Image

from inference.output import OutputSettings, save_pictures
from inference.watermark import BITS, watermarked


def cloudy(width: int = 512, height: int = 384, seed: int = 0) -> Image.Image:
    """Return a picture with the spectrum of photographs: noise of amplitude 1/f."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = 1 / np.maximum(frequency, 1 / height)
    phases = rng.random((3, *frequency.shape))
    planes = np.fft.irfft2(amplitude * np.exp(2j * np.pi * phases), s=(height, width))
    luma, blue, red = planes / planes.std(axis=(1, 2), keepdims=True)
    rgb = np.stack([luma * 40 + red * 15, luma * 40 - blue * 8, luma * 40 + blue * 15], axis=-1)
    return Image.fromarray((rgb + 128).clip(0, 255).astype(np.uint8))


def read_bits(picture: Image.Image) -> NDArray[np.bool_]:
    """Read 48 bits as the package invisible-watermark's decoder does (dwtDct, 8-bit pixels)."""
    u = cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2YUV)[..., 1].astype(float)
    votes: list[list[bool]] = [[] for _ in range(48)]
    blocks = [
        u[top : top + 8, left : left + 8]
        for top in range(0, u.shape[0] - 7, 8)
        for left in range(0, u.shape[1] - 7, 8)
    ]
    for number, block in enumerate(blocks):
        cells = (block[::2, ::2] + block[1::2, ::2] + block[::2, 1::2] + block[1::2, 1::2]) / 2
        votes[number % 48].append(cells.flatten()[1:].max() % 36 > 18)
    return np.array([np.mean(each) * 255 > 127 for each in votes])


def psnr(one: Image.Image, other: Image.Image) -> float:
    error = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def test_the_bits_are_those_of_diffusers():
    assert BITS.tolist() == WATERMARK_BITS


@pytest.mark.parametrize(
    ("output_format", "quality", "least"),
    [("png", 90, 48), ("webp", 90, 46), ("jpg", 90, 48), ("jpg", 80, 48)],
)
def test_the_mark_survives_every_format(
    tmp_path: Path, output_format: str, quality: int, least: int
):
    settings = OutputSettings(output_format=output_format, output_quality=quality)
    (path,) = save_pictures(watermarked([cloudy()]), tmp_path, settings)
    with Image.open(path) as image:
        assert (read_bits(image) == BITS).sum() >= least


def test_the_reader_finds_nothing_in_an_unmarked_picture():
    assert abs((read_bits(cloudy()) == BITS).sum() - 24) <= 8


def test_the_mark_is_invisible():
    picture = cloudy()
    (marked,) = watermarked([picture])
    assert psnr(picture, marked) > 39
    change = np.asarray(marked, np.float64) - np.asarray(picture, np.float64)
    luma = change @ (0.299, 0.587, 0.114)
    assert np.abs(luma).max() < 2.5
    assert np.abs(change).max() < 24


def test_a_picture_that_does_not_divide_into_blocks_is_marked():
    picture = cloudy(301, 275)
    (marked,) = watermarked([picture])
    assert marked.size == (301, 275)
    assert (read_bits(marked) == BITS).sum() == 48
    edge = np.asarray(marked)[:, 296:]
    assert np.array_equal(edge, np.asarray(picture)[:, 296:])


def test_the_same_picture_is_marked_alike_and_left_as_it_was():
    picture = cloudy()
    one, other = watermarked([picture, picture])
    assert one.tobytes() == other.tobytes()
    assert picture.tobytes() == cloudy().tobytes()


def test_small_pictures_stay_unmarked_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture):
    pictures = [cloudy(256, 248), cloudy(256, 248, seed=1)]
    with caplog.at_level(logging.WARNING):
        marked = watermarked(pictures)
    assert [each.tobytes() for each in marked] == [each.tobytes() for each in pictures]
    assert caplog.text.count("too small for the watermark") == 1
    assert watermarked([cloudy(256, 256)])[0].tobytes() != cloudy(256, 256).tobytes()
