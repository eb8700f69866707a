import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from sdxl.decoding import (
    DecodedPicture,
    UnreadablePictureError,
    decode_mask,
    decode_picture,
    own_pixel_limit,
)
from tests.preprocess.files import DATA, encode, picture

RED = (255, 0, 0)


@pytest.fixture
def decode(tmp_path: Path) -> Iterator:
    def decode(content: bytes) -> DecodedPicture:
        path = tmp_path / "upload"
        path.write_bytes(content)
        return decode_picture(path)

    with own_pixel_limit():
        yield decode


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference, 0 to 255."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 3),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("AVIF", {"quality": 95}, 3),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("GIF", {}, 12),
    ],
)
def test_every_kind_is_decoded_to_its_pixels(decode, kind: str, options, tolerance: float) -> None:
    decoded = decode(encode(picture(80, 48), kind, **options))
    assert decoded.pixels.mode == "RGB"
    assert difference(decoded.pixels, picture(80, 48)) <= tolerance
    assert decoded.alpha is None
    assert decoded.notes == ()


def test_heic_is_decoded() -> None:
    pixels = np.asarray(decode_picture(DATA / "red-blue.heic").pixels, np.int64)
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels[:, :28] - (255, 0, 0)).mean() < 6
    assert np.abs(pixels[:, 36:] - (0, 0, 255)).mean() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(decode, kind: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = picture(80, 48)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encode(stored, kind, exif=exif))
    assert difference(decoded.pixels, picture(80, 48)) < 6
    if kind != "TIFF":  # Pillow turns TIFFs while loading
        assert ("turned upright (EXIF)" in decoded.notes) is (orientation != 1)


def test_a_damaged_exif_block_does_not_spoil_the_picture(decode) -> None:
    assert decode(encode(picture(), "JPEG", exif=b"Exif\0\0garbage")).pixels.size == (64, 64)


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "P", "YCbCr"])
def test_other_color_modes_become_rgb(decode, mode: str) -> None:
    image = Image.new("RGB", (8, 8), RED).convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    pixels = decode(encode(image, kind)).pixels
    assert pixels.mode == "RGB"
    assert difference(pixels, image.convert("RGB")) < 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_gray_keep_their_shades(decode, kind: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    pixels = np.asarray(decode(encode(Image.fromarray(values), kind)).pixels)
    assert (pixels[..., 0] == np.rint(values / 257)).all()


def test_floating_point_pixels_are_refused(decode) -> None:
    with pytest.raises(UnreadablePictureError, match="floating-point numbers; save it with 8 or"):
        decode(encode(Image.new("F", (8, 8)), "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_parts_are_put_on_white(decode, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    content = encode(image.convert(mode), "TIFF" if mode == "PA" else "PNG")
    decoded = decode(content)
    assert decoded.pixels.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.pixels.getpixel((7, 7)) == (0, 0, 0)
    assert decoded.alpha is not None
    assert decoded.alpha.getpixel((0, 0)) == 0
    assert decoded.alpha.getpixel((7, 7)) == 255


def test_a_transparent_palette_color_is_put_on_white(decode) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (4, 0, 8, 8))
    decoded = decode(encode(image, "PNG", transparency=0))
    assert decoded.pixels.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.pixels.getpixel((7, 7)) == (0, 0, 255)


def test_an_opaque_alpha_channel_is_no_mask(decode) -> None:
    assert decode(encode(Image.new("RGBA", (8, 8), (1, 2, 3, 255)))).alpha is None


def test_a_fully_transparent_picture_is_refused(decode) -> None:
    with pytest.raises(UnreadablePictureError, match="every pixel of it is transparent"):
        decode(encode(Image.new("RGBA", (8, 8), (1, 2, 3, 0))))


def test_colors_are_converted_to_srgb_by_their_profile(decode) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    image = Image.new("LAB", (8, 8), (128, 128 + 40, 128 - 40))
    expected = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    decoded = decode(encode(image, "TIFF", icc_profile=lab.tobytes()))
    assert difference(decoded.pixels, expected) < 3
    assert "icc_profile" not in decoded.pixels.info


def test_an_unusable_color_profile_is_ignored_and_noted(decode) -> None:
    decoded = decode(encode(picture(), "PNG", icc_profile=b"not a profile"))
    assert difference(decoded.pixels, picture()) == 0
    assert decoded.notes == ("unusable color profile ignored",)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_taken(decode, kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert decoded.pixels.getpixel((4, 4)) == RED
    assert decoded.notes == ("first of 2 frames",)


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_several_pages_is_turned_once(decode, big: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = picture(80, 48).transpose(Image.Transpose.ROTATE_90)
    content = encode(stored, "TIFF", exif=exif, save_all=True, append_images=[stored], big_tiff=big)
    assert decode(content).pixels.tobytes() == picture(80, 48).tobytes()


def test_a_gray_picture_with_a_color_profile_is_read(decode) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    gray = picture().convert("L")
    assert difference(decode(encode(gray, "PNG", icc_profile=srgb)).pixels, gray.convert("RGB")) < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF"])
def test_truncated_pictures_are_refused(decode, kind: str) -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    content = encode(noise, kind)
    with pytest.raises(UnreadablePictureError, match=r"it is (damaged|not a picture)"):
        decode(content[: len(content) // 2])


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(decode) -> None:
    content = bytearray(encode(picture(8, 8), "BMP"))
    content[18:26] = (30_000).to_bytes(4, "little") * 2
    with pytest.raises(UnreadablePictureError, match="30000x30000 pixels; at most 200 megapixels"):
        decode(bytes(content))


def test_pillows_own_pixel_limit_is_restored() -> None:
    before = Image.MAX_IMAGE_PIXELS
    with own_pixel_limit():
        assert Image.MAX_IMAGE_PIXELS is None
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_mask_is_read_as_gray(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("1", (8, 8), 1).save(file, "PNG")
    (tmp_path / "m.png").write_bytes(file.getvalue())
    mask = decode_mask(tmp_path / "m.png")
    assert (mask.mode, mask.getextrema()) == ("L", (255, 255))


def test_transparent_parts_of_a_mask_do_not_count(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    image.paste((255, 255, 255, 255), (0, 0, 4, 8))
    image.save(tmp_path / "m.png")
    mask = decode_mask(tmp_path / "m.png")
    assert mask.getpixel((0, 0)) == 255
    assert mask.getpixel((7, 7)) == 0
