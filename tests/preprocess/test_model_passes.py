"""The preparation with models, from archive to manifest."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocess.clipseg import ClipSegMasker
from preprocess.config import PreprocessConfig
from preprocess.manifest import Manifest, TrainingExample
from preprocess.model_passes import ModelSources
from preprocess.prepare import preprocess
from preprocess.swin2sr import Swin2SRUpscaler
from tests.preprocess.files import DATA, encode, names_below, picture, png, write_zip

WITHOUT_MODELS = {"autocaption": False, "upscale": False}

FACE = (DATA / "astronaut.jpg").read_bytes()


def prepare(
    tmp_path: Path, members: dict[str, bytes], models: ModelSources, **settings: object
) -> Manifest:
    archive = write_zip(tmp_path / "data.zip", members)
    settings = {"resolution": 64} | settings
    return preprocess(
        archive, PreprocessConfig(**{**WITHOUT_MODELS, **settings}), tmp_path / "out", models
    )


def open_mask(manifest: Manifest, example: TrainingExample) -> Image.Image:
    assert example.mask_path is not None
    with Image.open(manifest.directory / example.mask_path) as mask:
        return mask.copy()


def test_the_default_needs_no_model_whatever_the_size(
    tmp_path: Path, no_models: ModelSources
) -> None:
    assert len(prepare(tmp_path, {"a.png": png(), "b.png": png(9, 9)}, no_models).examples) == 2


def test_clipseg_masks_follow_their_pictures_through_resize_and_crop(
    tmp_path: Path, tiny_sources: ModelSources
) -> None:
    settings = {"mask_target_prompts": "a robot", "crop_based_on_salience": False}
    manifest = prepare(tmp_path, {"a.png": png(300, 200)}, tiny_sources, **settings)
    resized = picture(300, 200).resize((96, 64), Image.Resampling.LANCZOS)
    mask = ClipSegMasker(Path(tiny_sources.clipseg)).mask(resized, "a robot", 1.0)
    assert mask is not None
    expected = 0.01 * 255 + 0.99 * np.asarray(mask.crop((16, 0, 80, 64)), np.float64)
    assert (np.asarray(open_mask(manifest, manifest.examples[0])) == np.rint(expected)).all()
    assert "mask: 'a robot'" in manifest.examples[0].notes


def test_the_users_masks_win_over_clipseg(tmp_path: Path, tiny_sources: ModelSources) -> None:
    white = encode(Image.new("L", (64, 64), 255))
    members = {"a.png": png(), "a-mask.png": white, "b.png": png()}
    manifest = prepare(tmp_path, members, tiny_sources, mask_target_prompts="a robot")
    first, second = manifest.examples
    assert open_mask(manifest, first).getextrema() == (255, 255)
    assert "mask: a-mask.png" in first.notes
    assert "mask: 'a robot'" in second.notes


def test_users_masks_for_all_need_no_clipseg(tmp_path: Path, no_models: ModelSources) -> None:
    members = {"a.png": png(), "a-mask.png": encode(Image.new("L", (64, 64), 255))}
    assert prepare(tmp_path, members, no_models, mask_target_prompts="a robot").examples


@pytest.mark.parametrize("name", ["temperature", "prompt"])
def test_temperature_and_prompt_reach_the_mask(
    tmp_path: Path, tiny_sources: ModelSources, name: str
) -> None:
    masks: list[bytes] = []
    for number, settings in enumerate(
        [{}, {"clipseg_temperature": 0.05} if name == "temperature" else {"prompt": "the sea"}]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        prompt = settings.pop("prompt", "a robot")
        manifest = prepare(
            folder, {"a.png": png()}, tiny_sources, mask_target_prompts=prompt, **settings
        )
        masks.append(open_mask(manifest, manifest.examples[0]).tobytes())
    assert masks[0] != masks[1]


def test_faces_are_masked_and_the_crop_goes_there(tmp_path: Path, no_models: ModelSources) -> None:
    wide = Image.new("RGB", (720, 180), (90, 90, 90))
    with Image.open(DATA / "astronaut.jpg") as face:
        wide.paste(face, (480, 0))
    manifest = prepare(
        tmp_path,
        {"a.png": encode(wide), "b.jpg": FACE},
        no_models,
        resolution=128,
        use_face_detection_instead=True,
        mask_target_prompts="not used then",
    )
    first = manifest.examples[0]
    assert "mask: a face" in first.notes
    assert "cropped to 128x128 around the mask" in first.notes
    assert first.crop_top_left[1] == pytest.approx((480 + 124) * 128 / 180 - 64, abs=12)
    assert open_mask(manifest, first).getpixel((64, 60)) == 255
    assert open_mask(manifest, first).getpixel((2, 125)) == 3


def test_no_hit_means_the_whole_picture_and_is_logged(
    tmp_path: Path, no_models: ModelSources, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    members = {"a.png": png(), "b.jpg": FACE}
    manifest = prepare(tmp_path, members, no_models, use_face_detection_instead=True)
    assert manifest.examples[0].mask_path is None
    assert "a face not found, so all of it counts" in manifest.examples[0].notes
    assert manifest.examples[1].mask_path is not None
    assert "a face not found, so the whole picture counts: a.png" in caplog.text


def test_small_pictures_are_upscaled_to_the_exact_size(
    tmp_path: Path, tiny_sources: ModelSources
) -> None:
    members = {"small.png": png(20, 16), "tiny.png": png(3, 3), "wide.png": png(300, 64)}
    manifest = prepare(tmp_path, members, tiny_sources, upscale=True)
    small, tiny, wide = manifest.examples
    assert small.original_size == (16, 20)
    assert small.notes[0] == "upscaled 20x16 to 80x64 with Swin2SR"
    assert tiny.notes == ("upscaled 3x3 to 64x64 with Swin2SR",)
    assert wide.notes == ("cropped to 64x64 around the middle",)
    upscaled = Swin2SRUpscaler(Path(tiny_sources.swin2sr)).upscale(picture(20, 16))
    assert upscaled.size == (80, 64)
    with Image.open(manifest.directory / small.image_path) as image:
        assert image.tobytes() == upscaled.crop((8, 0, 72, 64)).tobytes()


def test_the_mask_of_a_small_picture_fits_the_upscaled_one(
    tmp_path: Path, tiny_sources: ModelSources
) -> None:
    mask = Image.new("L", (20, 16), 0)
    mask.paste(255, (0, 0, 10, 16))
    members = {"a.png": png(20, 16), "a-mask.png": encode(mask)}
    example = prepare(tmp_path, members, tiny_sources, upscale=True).examples[0]
    assert example.crop_top_left == (0, 0)
    assert example.mask_path is not None


def test_large_pictures_need_no_upscaler(tmp_path: Path, no_models: ModelSources) -> None:
    assert prepare(tmp_path, {"a.png": png(64, 64)}, no_models, upscale=True).examples


@pytest.mark.parametrize("name", ["blip", "florence2"])
def test_pictures_are_described_between_prefix_and_suffix(
    tmp_path: Path, tiny_sources: ModelSources, name: str
) -> None:
    members = {f"{number}.png": png(60 + number, 64) for number in range(6)}
    members["3.txt"] = b"my own TOK"
    manifest = prepare(
        tmp_path,
        members,
        tiny_sources,
        autocaption=True,
        caption_model=name,
        caption_suffix=", painted",
    )
    captions = [example.caption for example in manifest.examples]
    assert captions.pop(3) == "my own TOK"
    for caption in captions:
        assert caption.startswith("a photo of TOK, ")
        assert caption.endswith(", painted")
        assert len(caption) > len("a photo of TOK, , painted")


def test_captions_of_the_users_own_for_all_need_no_captioner(
    tmp_path: Path, no_models: ModelSources
) -> None:
    members = {"a.png": png(), "a.txt": b"a TOK"}
    assert prepare(tmp_path, members, no_models, autocaption=True).examples[0].caption == "a TOK"


def test_caption_model_none_captions_with_the_prefix(
    tmp_path: Path, no_models: ModelSources
) -> None:
    settings = {"autocaption": True, "caption_model": "none"}
    manifest = prepare(tmp_path, {"a.png": png()}, no_models, **settings)
    assert manifest.examples[0].caption == "a photo of TOK"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"autocaption": True}, r"autocaption needs .*caption_model=none.*captions\.csv"),
        ({"upscale": True}, "upscale needs .*set upscale=false"),
        ({"mask_target_prompts": "x"}, r"mask_target_prompts needs .*leave it out.*name-mask\.png"),
    ],
)
def test_a_model_that_cannot_be_had_names_the_ways_out(
    tmp_path: Path, no_models: ModelSources, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        prepare(tmp_path, {"a.png": png(32, 32)}, no_models, **settings)
    assert names_below(tmp_path / "out") == set()
