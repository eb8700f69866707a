from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.fine_tunes import FineTune
from inference.generator import PictureGenerator
from inference.request import GenerationRequest
from inference.schedulers import SCHEDULERS
from tests.inference.serving import load_generator, make_weights
from tests.tiny_sdxl import load_tiny_sdxl, write_tiny_refiner, write_tiny_sdxl

REQUEST = {
    "prompt": "a photo of TOK on the beach", "width": 64, "height": 64, "num_inference_steps": 2,
    "guidance_scale": 5.0,
}  # fmt: skip
Make = Callable[..., list[np.ndarray]]


@pytest.fixture(scope="module")
def fine_tune(tiny_sdxl_dir: Path) -> FineTune:
    return FineTune(name="it", weights=make_weights(load_tiny_sdxl(tiny_sdxl_dir)))


@pytest.fixture(scope="module")
def generator(tiny_sdxl_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> PictureGenerator:
    """One for all tests: what a request leaves behind would show in the next."""
    refiner = write_tiny_refiner(tmp_path_factory.mktemp("refiner"))
    return load_generator(tiny_sdxl_dir, refiner)


@pytest.fixture(scope="module")
def make(generator: PictureGenerator, fine_tune: FineTune) -> Make:
    def make(**changes: object) -> list[np.ndarray]:
        request = GenerationRequest(**{**REQUEST, **changes})
        return [np.asarray(picture) for picture in generator.generate(request, [fine_tune])]

    return make


def picture(size: tuple[int, int] = (64, 64), seed: int = 0) -> Image.Image:
    """Smooth, so that it survives the VAE a little."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def right_half(size: tuple[int, int] = (64, 64), shade: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(shade, (size[0] // 2, 0, *size))
    return mask


def test_the_same_request_gives_the_same_pictures(make: Make):
    assert np.array_equal(make()[0], make()[0])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a photo of TOK in the snow"},
        {"negative_prompt": "a red ball"},
        {"seed": 1},
        {"num_inference_steps": 3},
        {"guidance_scale": 2.0},
        {"guidance_rescale": 0.7},
        {"scheduler": "DDIM"},
        {"image": picture()},
        {"refine": "expert_ensemble_refiner"},
        {"refine": "base_image_refiner", "refine_steps": 5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_input_acts_on_the_picture(make: Make, change: dict):
    assert not np.array_equal(make()[0], make(**change)[0])


@pytest.mark.parametrize(
    ("inputs", "change"),
    [
        ({"image": picture()}, {"prompt_strength": 1.0}),
        ({"image": picture()}, {"image": picture(seed=1)}),
        ({"image": picture()}, {"mask": right_half()}),
        ({"refine": "expert_ensemble_refiner"}, {"high_noise_frac": 0.4}),
        ({"refine": "base_image_refiner", "refine_steps": 5}, {"refine_steps": 9}),
    ],
    ids=["prompt_strength", "image", "mask", "high_noise_frac", "refine_steps"],
)
def test_inputs_of_a_mode_act_in_it(make: Make, inputs: dict, change: dict):
    inputs = {"num_inference_steps": 4, **inputs}
    assert not np.array_equal(make(**inputs)[0], make(**{**inputs, **change})[0])


def test_sizes_are_as_asked_and_else_the_bases_own(make: Make):
    assert make(width=96, height=72)[0].shape == (72, 96, 3)
    assert make(width=None, height=None)[0].shape == (32, 32, 3)


def test_sizes_between_multiples_of_8_are_rounded_and_the_log_says_so(
    make: Make, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    assert make(width=101, height=83)[0].shape == (80, 104, 3)
    assert "width 101 is made 104, a multiple of 8" in caplog.text
    assert "height 83 is made 80" in caplog.text


def test_a_picture_decides_the_size_unless_one_is_asked_for(make: Make):
    image = picture((96, 64))
    assert make(image=image, width=None, height=None)[0].shape == (64, 96, 3)
    assert make(image=image, width=64, height=64)[0].shape == (64, 64, 3)


def test_each_output_has_its_own_seed_and_can_be_made_again_alone(make: Make):
    three = make(num_outputs=3, seed=10)
    assert len(three) == 3
    alone = make(seed=12)[0]
    # batches may round differently: one step of 255
    assert np.abs(three[2].astype(int) - alone.astype(int)).max() <= 1
    assert not np.array_equal(three[0], three[1])


@pytest.mark.parametrize("mode", ["text", "image", "inpainting", "expert", "base image"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_makes_a_picture_in_every_mode(make: Make, name: str, mode: str):
    inputs = {
        "text": {},
        "image": {"image": picture()},
        "inpainting": {"image": picture(), "mask": right_half()},
        "expert": {"refine": "expert_ensemble_refiner"},
        "base image": {"refine": "base_image_refiner"},
    }[mode]
    made = make(scheduler=name, num_inference_steps=5, **inputs)[0]
    assert made.shape == (64, 64, 3)
    assert made.std() > 0


def test_an_unknown_scheduler_is_refused_with_those_that_exist(make: Make):
    with pytest.raises(ValueError, match=r"scheduler must be one of DDIM, .*got 'EULER'"):
        make(scheduler="EULER")


def test_the_strength_goes_from_the_picture_to_nothing_of_it(make: Make):
    image = picture()
    steps = {"num_inference_steps": 10, "image": image}
    made = [make(prompt_strength=s, **steps)[0].astype(int) for s in (0.0, 0.3, 0.7, 1.0)]
    distances = [np.abs(m - made[0]).mean() for m in made]
    assert distances == sorted(distances)
    assert np.array_equal(made[3], make(num_inference_steps=10)[0])


def test_inpainting_keeps_the_black_part_pixel_for_pixel(make: Make):
    image = picture()
    made = make(image=image, mask=right_half(), prompt_strength=1.0)[0]
    original = np.asarray(image)
    assert np.array_equal(made[:, :32], original[:, :32])
    assert np.abs(made[:, 32:].astype(int) - original[:, 32:]).mean() > 5


def test_grey_mixes_both(make: Make):
    inputs = {"image": picture(), "prompt_strength": 1.0}
    white = make(mask=right_half(), **inputs)[0].astype(int)
    grey = make(mask=right_half(shade=160), **inputs)[0].astype(int)
    original = np.asarray(picture()).astype(int)
    mixed = (white * 160 + original * 95) / 255
    assert np.abs(grey - mixed)[:, 32:].max() <= 1


def test_an_image_of_another_shape_is_cropped_not_distorted(make: Make):
    image = Image.new("RGB", (128, 64), "black")
    image.paste("white", (48, 16, 80, 48))  # a square
    made = make(image=image, prompt_strength=0.0, width=64, height=64)[0]
    whole = make(image=image.crop((32, 0, 96, 64)), prompt_strength=0.0, width=64, height=64)[0]
    assert np.array_equal(made, whole)


def test_all_modes_share_one_set_of_weights(make: Make, generator: PictureGenerator):
    models = generator._models
    before = [id(p) for p in models.unet.parameters()] + [id(p) for p in models.vae.parameters()]
    for inputs in ({}, {"image": picture()}, {"image": picture(), "mask": right_half()}):
        make(**inputs)
    after = [id(p) for p in models.unet.parameters()] + [id(p) for p in models.vae.parameters()]
    assert after == before
    assert generator._load_refiner()._models is models


def test_the_refiner_is_loaded_when_it_is_first_asked_for(tiny_sdxl_dir: Path):
    asked = []

    def find_refiner() -> Path:
        asked.append(1)
        return tiny_sdxl_dir  # a base in its place

    generator = PictureGenerator(load_tiny_sdxl(tiny_sdxl_dir), find_refiner)
    for refine in ("no_refiner", "base_image_refiner", "expert_ensemble_refiner"):
        generator.generate(GenerationRequest(**REQUEST | {"num_inference_steps": 5}, refine=refine))
        assert len(asked) == (refine != "no_refiner")


def test_with_all_the_noise_for_the_base_there_is_nothing_left_to_refine(make: Make):
    refined = make(refine="expert_ensemble_refiner", high_noise_frac=1.0)[0]
    assert np.array_equal(refined, make()[0])


def test_too_few_steps_to_share_with_a_refiner_are_refused(make: Make):
    with pytest.raises(ValueError, match=r"num_inference_steps=1 leave the base model no step"):
        make(refine="expert_ensemble_refiner", num_inference_steps=1)


def test_a_refiner_of_another_base_is_refused(tiny_sdxl_dir: Path, tmp_path: Path):
    generator = load_generator(tiny_sdxl_dir, write_tiny_refiner(tmp_path, states=40))
    request = GenerationRequest(**REQUEST, refine="expert_ensemble_refiner")
    with pytest.raises(ValueError, match=r"belongs to another base model .*REFINER_MODEL"):
        generator.generate(request)


def test_only_large_pictures_go_through_the_vae_in_tiles(
    make: Make, generator: PictureGenerator, monkeypatch: pytest.MonkeyPatch
):
    image = {"image": picture((96, 64)), "width": None, "height": None}
    whole = make(**image)[0]
    assert not generator._models.vae.use_tiling
    monkeypatch.setattr("inference.generator.WHOLE_AREA_PX", 64 * 64)
    assert not np.array_equal(make(**image)[0], whole)
    assert generator._models.vae.use_tiling
    monkeypatch.undo()
    assert np.array_equal(make(**image)[0], whole)


def test_an_inpainting_base_paints_repaints_and_goes_on_from_pictures(tmp_path: Path):
    generator = load_generator(write_tiny_sdxl(tmp_path, "inpainting"))
    made = {}
    for name, inputs in {
        "text": {},
        "image": {"image": picture()},
        "mask": {"image": picture(), "mask": right_half()},
    }.items():
        request = GenerationRequest(**REQUEST, prompt_strength=0.5, **inputs)
        made[name] = np.asarray(generator.generate(request)[0])
    assert np.array_equal(made["mask"][:, :32], np.asarray(picture())[:, :32])
    assert len({array.tobytes() for array in made.values()}) == 3


def test_a_half_precision_base_works_in_every_mode_with_a_float32_vae(
    tiny_sdxl_dir: Path, fine_tune: FineTune
):
    models = load_tiny_sdxl(tiny_sdxl_dir, torch.bfloat16)  # as on a GPU
    generator = PictureGenerator(models, lambda: tiny_sdxl_dir)
    for inputs in (
        {}, {"image": picture()}, {"image": picture(), "mask": right_half()},
        {"refine": "expert_ensemble_refiner"},
    ):  # fmt: skip
        request = GenerationRequest(**REQUEST, num_outputs=2, **inputs)
        for made in generator.generate(request, [fine_tune]):
            assert made.size == (64, 64)
            assert np.asarray(made).std() > 0
        assert models.vae.dtype == torch.float32


def test_a_prompt_without_the_trigger_is_warned_of(make: Make, caplog: pytest.LogCaptureFixture):
    make()
    assert "does not contain" not in caplog.text
    make(prompt="a photo of tok, TOKYO")
    assert "does not contain TOK" in caplog.text


def test_seed_zero_is_a_seed(make: Make):
    assert np.array_equal(make(seed=0)[0], make()[0])
    assert list(GenerationRequest(prompt="x", seed=0, num_outputs=2).seeds) == [0, 1]
