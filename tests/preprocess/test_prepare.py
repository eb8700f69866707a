import csv
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.config import PreprocessConfig
from preprocess.manifest import Manifest
from preprocess.pictures import center_of_mass
from preprocess.prepare import preprocess
from tests.preprocess.files import encode, names_below, picture, png, write_folder, write_zip

WITHOUT_MODELS = {"autocaption": False, "upscale": False}

RED, BLUE, BLACK, WHITE = (255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)


def prepare(tmp_path: Path, members: dict[str, bytes], **settings: object) -> Manifest:
    archive = write_zip(tmp_path / "data.zip", members)
    return preprocess(
        archive,
        PreprocessConfig(**{**WITHOUT_MODELS, "resolution": 64, **settings}),
        tmp_path / "out",
    )


def test_pictures_become_examples_of_the_resolution(tmp_path: Path) -> None:
    members = {"wide.png": png(300, 200), "x/tall.png": png(200, 300), "x/even.png": png(64, 64)}
    manifest = prepare(tmp_path, members)
    assert Manifest.load(tmp_path / "out") == manifest
    wide, even, tall = manifest.examples
    assert (wide.source_name, wide.original_size) == ("wide.png", (200, 300))
    assert wide.crop_top_left == (0, 16)
    assert wide.target_size == (64, 64)
    assert wide.mask_path is None
    assert wide.notes == ("resized 300x200 to 96x64", "cropped to 64x64 around the middle")
    assert (tall.source_name, tall.crop_top_left) == ("x/tall.png", (16, 0))
    assert (even.source_name, even.notes) == ("x/even.png", ())
    for example in manifest.examples:
        with Image.open(manifest.directory / example.image_path) as image:
            assert (image.mode, image.size) == ("RGB", (64, 64))
    expected = picture(300, 200).resize((96, 64), Image.Resampling.LANCZOS).crop((16, 0, 80, 64))
    with Image.open(manifest.directory / wide.image_path) as image:
        assert image.tobytes() == expected.tobytes()


@pytest.mark.parametrize("resolution", [64, 128])
def test_resolution_sets_the_size(tmp_path: Path, resolution: int) -> None:
    archive = write_zip(tmp_path / "data.zip", {"a.png": png(300, 200)})
    manifest = preprocess(
        archive, PreprocessConfig(resolution=resolution, **WITHOUT_MODELS), tmp_path / "out"
    )
    assert manifest.examples[0].target_size == (resolution, resolution)


def test_only_the_prepared_files_remain(tmp_path: Path) -> None:
    prepare(tmp_path, {"a.png": png()})
    assert names_below(tmp_path / "out") == {
        "manifest.jsonl", "captions.csv", "images/01-a.png",
    }  # fmt: skip


@pytest.mark.parametrize("members", [{"a.png": b"broken"}, {"a.png": png(), "../b.png": png()}])
def test_nothing_remains_after_an_error(tmp_path: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r"a\.png|b\.png"):
        prepare(tmp_path, members)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_holds_a_prepared_set_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, {"a.png": png()})
    with pytest.raises(ValueError, match="out already holds prepared pictures"):
        prepare(tmp_path, {"a.png": png()})


def test_the_same_archive_gives_the_same_bytes(tmp_path: Path) -> None:
    members = {f"{number}.png": png(100 + number, 90) for number in range(6)}
    archive = write_zip(tmp_path / "data.zip", members)
    folder = write_folder(tmp_path / "data", dict(reversed(members.items())))
    for upload, out in ((archive, "one"), (folder, "two")):
        preprocess(upload, PreprocessConfig(resolution=64, **WITHOUT_MODELS), tmp_path / out)
    assert names_below(tmp_path / "one") == names_below(tmp_path / "two")
    for name in names_below(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_no_pictures_says_what_was_found_and_what_is_accepted(tmp_path: Path) -> None:
    members = {"a.txt": b"x", "b.txt": b"x", "film.mp4": b"x", "LICENSE": b"x"}
    with pytest.raises(
        ValueError,
        match=r"data\.zip holds no pictures \(found: 1 \.mp4, 2 \.txt, 1 without ending\); "
        "accepted: JPEG, PNG",
    ):
        prepare(tmp_path, members)
    with pytest.raises(ValueError, match=r"holds no pictures \(found: nothing\)"):
        prepare(tmp_path, {})


def test_all_bad_pictures_are_listed_at_once(tmp_path: Path) -> None:
    members = {
        "good.png": png(),
        "x/cut.png": png(200, 200)[:400],
        "b.jpg": b"<html>",
        "c.psd": b"8BPS",
        "glass.png": encode(Image.new("RGBA", (8, 8))),
        "strip.png": png(100, 4),
        "d.png": png(60, 40),
        "d-mask.png": encode(Image.new("L", (40, 60), 255)),
        "e.png": png(),
        "e-mask.png": encode(Image.new("L", (64, 64), 0)),
    }
    with pytest.raises(ValueError, match=r"^input_images: 7 files of data\.zip cannot") as raised:
        prepare(tmp_path, members)
    with pytest.raises(ValueError, match=r"1 file of data\.zip cannot be used.*b\.jpg"):
        prepare(tmp_path, {"b.jpg": b"<html>"})
    for says in (
        r"x/cut\.png: it is damaged",
        r"b\.jpg: it holds no picture \(web page\)",
        r"c\.psd: \.psd is not accepted",
        r"glass\.png: every pixel of it is transparent",
        r"strip\.png: it is 100x4 px; one side may be at most 20 times the other",
        r"d-mask\.png: it is 40x60 px, its picture 60x40 px: a mask needs the shape",
        r"e-mask\.png: the mask is all black",
    ):
        assert raised.match(f"(?s).*{says}")


def test_captions_are_made_from_prefix_and_suffix(tmp_path: Path) -> None:
    manifest = prepare(
        tmp_path, {"a.png": png()}, token_string="sks", caption_suffix=", studio light"
    )
    assert manifest.examples[0].caption == "a photo of sks, studio light"


def test_a_prefix_without_the_token_gets_it(tmp_path: Path) -> None:
    manifest = prepare(tmp_path, {"a.png": png()}, caption_prefix="a drawing of Tokyo, ")
    assert manifest.examples[0].caption == "TOK, a drawing of Tokyo"


def test_the_users_captions_win_and_get_the_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    members = {
        "a.png": png(),
        "b.png": png(),
        "c.png": png(),
        "captions.csv": b"caption,image_file\nTOK at sea,a.png\nat home,b.png\nlost,z.png\n",
    }
    manifest = prepare(tmp_path, members)
    assert [example.caption for example in manifest.examples] == [
        "TOK at sea", "TOK, at home", "a photo of TOK",
    ]  # fmt: skip
    assert "TOK put in front of the caption" in manifest.examples[1].notes
    assert "2 of 3 pictures have your captions" in caplog.text
    assert "captions without a picture: captions.csv, line 4: 'z.png'" in caplog.text
    assert "pictures without a caption of yours: c.png" in caplog.text
    assert "1 caption lacked TOK, which was put in front: b.png" in caplog.text


def test_returned_captions_can_be_edited_and_fed_in_again(tmp_path: Path) -> None:
    members = {"x/a.png": png(), "y/a.png": png(), "b.png": png()}
    captions = 'caption,image_file\n"a ""red"" TOK, here",x/a.png\n'
    first = prepare(tmp_path, {**members, "captions.csv": captions.encode()})
    returned = (first.directory / "captions.csv").read_bytes()
    archive = write_zip(tmp_path / "again.zip", {**members, "captions.csv": returned})
    again = preprocess(
        archive, PreprocessConfig(resolution=64, **WITHOUT_MODELS), tmp_path / "again"
    )
    assert again.examples == first.examples
    with (again.directory / "captions.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"caption": 'a "red" TOK, here', "image_file": "x/a.png"}


def half_mask(width: int, height: int) -> Image.Image:
    """White on the right half."""
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, (width // 2, 0, width, height))
    return mask


def test_the_users_mask_follows_its_picture_through_resize_and_crop(tmp_path: Path) -> None:
    mask = half_mask(256, 128)
    image = Image.composite(Image.new("RGB", mask.size, RED), Image.new("RGB", mask.size), mask)
    members = {"a.jpg": encode(image, "PNG"), "a-mask.png": encode(mask)}
    example = prepare(tmp_path, members, crop_based_on_salience=False).examples[0]
    assert example.crop_top_left == (0, 32)
    assert "mask: a-mask.png" in example.notes
    assert example.mask_path is not None
    with Image.open(tmp_path / "out" / example.mask_path) as opened:
        assert (opened.mode, opened.size) == ("L", (64, 64))
        weights = np.asarray(opened, np.int64)
    with Image.open(tmp_path / "out" / example.image_path) as opened:
        red = np.asarray(opened, np.int64)[..., 0]
    assert set(weights[:, :30].ravel()) == {3}  # 0.01 of 255
    assert set(weights[:, 34:].ravel()) == {255}
    assert np.abs(weights - red).mean() < 4


@pytest.mark.parametrize(("weight", "darkest"), [(0.0, 0), (0.5, 128), (1.0, 255)])
def test_mask_background_weight_is_the_floor_of_the_mask(
    tmp_path: Path, weight: float, darkest: int
) -> None:
    members = {"a.png": png(), "a-mask.png": encode(half_mask(64, 64))}
    example = prepare(tmp_path, members, mask_background_weight=weight).examples[0]
    assert example.mask_path is not None
    with Image.open(tmp_path / "out" / example.mask_path) as mask:
        assert mask.getextrema() == (darkest, 255)


@pytest.mark.parametrize(("is_salient", "left"), [(True, 64), (False, 32)])
def test_the_crop_goes_to_the_mask_unless_told_not_to(
    tmp_path: Path, is_salient: bool, left: int
) -> None:
    members = {"a.png": png(256, 128), "a-mask.png": encode(half_mask(256, 128))}
    example = prepare(tmp_path, members, crop_based_on_salience=is_salient).examples[0]
    assert example.crop_top_left == (0, left)


def test_a_mask_of_another_size_but_the_same_shape_is_scaled(tmp_path: Path) -> None:
    members = {"a.png": png(256, 128), "a-mask.png": encode(half_mask(128, 64))}
    assert prepare(tmp_path, members).examples[0].crop_top_left == (0, 64)


def test_transparency_is_a_mask_and_the_users_own_mask_wins(tmp_path: Path) -> None:
    image = picture(64, 64)
    image.putalpha(half_mask(64, 64))
    members = {
        "a.png": encode(image),
        "b.png": encode(image),
        "b-mask.png": encode(half_mask(64, 64).rotate(180)),
    }
    alone, beside = prepare(tmp_path, members).examples
    assert "mask: its transparency" in alone.notes
    assert "mask: b-mask.png" in beside.notes
    for example, right in ((alone, 255), (beside, 3)):
        assert example.mask_path is not None
        with Image.open(tmp_path / "out" / example.mask_path) as mask:
            assert mask.getpixel((60, 32)) == right
    with Image.open(tmp_path / "out" / alone.image_path) as opened:
        assert opened.getpixel((2, 2)) == WHITE


def test_buckets_keep_the_shape(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "data.zip", {"a.png": png(400, 300), "b.png": png(300, 400)})
    config = PreprocessConfig(resolution=256, aspect_ratio_buckets=True, **WITHOUT_MODELS)
    first, second = preprocess(archive, config, tmp_path / "out").examples
    assert first.target_size == (224, 288)
    assert second.target_size == (288, 224)
    with Image.open(tmp_path / "out" / first.image_path) as image:
        assert image.size == (288, 224)


def test_the_log_tells_what_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    members = {
        "a.jpg": encode(picture(), "JPEG"),
        "b.png": png(),
        "b-mask.png": encode(Image.new("L", (64, 64), 255)),
        "c.png": png(32, 48),
        ".DS_Store": b"x",
        "film.mp4": b"x",
    }
    prepare(tmp_path, members)
    assert "3 pictures in data.zip (zip): 2 PNG, 1 JPEG; 1 mask" in caplog.text
    assert "skipped 1 file of the operating system" in caplog.text
    assert "not used, as they are not pictures: film.mp4" in caplog.text
    assert "3 pictures: fewer than 5 leave the model nothing to tell the subject" in caplog.text
    assert "1 picture is smaller than the target and enlarged, so less sharp" in caplog.text
    assert "c.png (32x48)" in caplog.text
    assert "a.jpg: used as it is; caption: a photo of TOK" in caplog.text


def test_verbose_off_leaves_out_the_line_for_each_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    prepare(tmp_path, {"a.png": png()}, verbose=False)
    assert "used as it is" not in caplog.text
    assert "1 picture in data.zip" in caplog.text


def test_the_center_of_mass_is_where_the_white_is() -> None:
    mask = Image.new("L", (10, 6), 0)
    assert center_of_mass(mask) is None
    mask.paste(255, (6, 0, 10, 2))
    assert center_of_mass(mask) == (1.0, 8.0)
