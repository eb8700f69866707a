from typing import Any

import pytest
from PIL import Image

from inference.metadata import SAMPLERS, picture_text, shown_source
from inference.request import GenerationRequest
from inference.schedulers import SCHEDULERS
from tests.inference.parameters import read_parameters

IMAGE = Image.new("RGB", (64, 64))
SIGNED = "https://user:pass@bucket.example.com/a/weights.tar?X-Signature=secret&Expires=1#secret"


def text(*, sources=(), base_model: str = "sdxl", **changes: Any) -> str:
    request = GenerationRequest(**{"prompt": "a photo of TOK", **changes})
    return picture_text(request, (1024, 768), 7, base_model, sources)


def test_the_text_is_in_automatic1111s_form():
    assert text(negative_prompt="blurry", num_inference_steps=30, scheduler="KarrasDPM") == (
        "a photo of TOK\n"
        "Negative prompt: blurry\n"
        "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 7, "
        "Size: 1024x768, Model: sdxl, scheduler: KarrasDPM"
    )


@pytest.mark.parametrize(
    ("changes", "name", "shown"),
    [
        ({"guidance_scale": 5.0}, "CFG scale", "5"),
        ({"guidance_rescale": 0.7}, "guidance_rescale", "0.7"),
        ({"scheduler": "K_EULER_ANCESTRAL"}, "Sampler", "Euler a"),
        ({"image": IMAGE, "prompt_strength": 0.35}, "Denoising strength", "0.35"),
        ({"image": IMAGE, "mask": IMAGE.convert("L")}, "mask", "white is repainted"),
        ({"refine": "expert_ensemble_refiner"}, "refine", "expert_ensemble_refiner"),
        (
            {"refine": "expert_ensemble_refiner", "high_noise_frac": 0.9},
            "high_noise_frac",
            "0.9",
        ),
        ({"refine": "base_image_refiner", "refine_steps": 20}, "refine_steps", "20"),
        ({"base_model": "owner/model"}, "Model", "owner/model"),
        (
            {"sources": [("owner/style", 0.1 + 0.2), ("C:\\a.tar", -1.0)]},
            "weights",
            "owner/style:0.3, C:\\a.tar:-1",
        ),
    ],
)
def test_what_it_takes_to_make_a_picture_again_is_in_its_text(changes: dict, name: str, shown: str):
    assert read_parameters(text(**changes))[name] == shown


def test_what_did_not_act_is_not_in_the_text():
    plain = read_parameters(text(prompt_strength=0.3, high_noise_frac=0.5, refine_steps=9))
    assert set(plain) == {
        "Prompt", "Negative prompt", "Steps", "Sampler", "Schedule type", "CFG scale", "Seed",
        "Size", "Model", "scheduler",
    }  # fmt: skip


@pytest.mark.parametrize(
    "base_model",
    ["a, b", "a: b", '"quoted"', 'an "inch", \\ and\nmore', " edge ", "Größe, 寸法"],
)
def test_values_with_special_characters_are_read_back(base_model: str):
    read = read_parameters(text(base_model=base_model))
    assert read["Model"] == base_model
    assert read["scheduler"] == "K_EULER"


def test_prompts_of_several_lines_are_read_back():
    read = read_parameters(text(prompt="a cat,\nSteps: many", negative_prompt="dogs\nand rain"))
    assert read["Prompt"] == "a cat,\nSteps: many"
    assert read["Negative prompt"] == "dogs\nand rain"


def test_an_empty_prompt_is_no_line():
    assert text(prompt="").startswith("Steps: 50, ")


def test_half_a_character_in_a_prompt_does_not_make_the_text_unwritable():
    assert text(prompt="a \ud83d cat").encode("utf-16-be")


def test_no_secret_of_an_address_is_in_the_text():
    shown = text(sources=[(SIGNED, 0.6)], base_model=SIGNED)
    assert "secret" not in shown
    assert "pass" not in shown
    assert read_parameters(shown)["weights"] == "https://bucket.example.com/a/weights.tar:0.6"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("data:application/x-tar;base64,AAAA", "data:application/x-tar"),
        ("https://a.example/x.tar, https://b.example/y?k=1:0.8", "https://a.example/x.tar, https://b.example/y"),
        ("https://me@k/e@y:p@a.example/x", "https://k/e@y:p@a.example/x"),
        ("https://us@er:pw@a.example/x", "https://a.example/x"),
        ("owner/model", "owner/model"),
        ("/weights/a?b.tar", "/weights/a?b.tar"),
    ],
)  # fmt: skip
def test_sources_are_shown_without_what_is_secret_or_huge(source: str, shown: str):
    assert shown_source(source) == shown


def test_every_scheduler_has_a_sampler_of_its_own_there():
    assert set(SAMPLERS) == set(SCHEDULERS)
    assert len(set(SAMPLERS.values())) == len(SAMPLERS)
