from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from inference.safety import SafetyChecker


def write_checker(directory: Path, threshold: float) -> Path:
    """A tiny real checker; every picture's similarity to every concept is above -1, below 1."""
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**small, "vocab_size": 10},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(threshold)
    checker.special_care_embeds_weights.data.fill_(1.0)
    checker.concept_embeds.data.normal_()
    checker.save_pretrained(directory)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(directory)
    return directory


PICTURES = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
SEEDS = [7, 8]


def test_harmless_pictures_pass_unchanged(tmp_path: Path):
    checker = SafetyChecker(write_checker(tmp_path, threshold=1.0), torch.device("cpu"))
    assert checker.allowed(PICTURES, SEEDS) == list(zip(PICTURES, SEEDS, strict=True))


def test_when_every_picture_is_flagged_the_error_says_what_to_do(tmp_path: Path):
    checker = SafetyChecker(write_checker(tmp_path, threshold=-1.0), torch.device("cpu"))
    with pytest.raises(ValueError, match=r"flagged every picture.*disable_safety_checker=true"):
        checker.allowed(PICTURES, SEEDS)


def test_a_flagged_picture_is_left_out_and_the_log_says_which(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    checker = SafetyChecker(write_checker(tmp_path, threshold=1.0), torch.device("cpu"))
    similarity = _similarities(checker, PICTURES)
    # a threshold between the two pictures for the first concept
    checker._model.concept_embeds_weights.data[0] = similarity.mean()
    dangerous = int(similarity.argmax())
    kept = checker.allowed(PICTURES, SEEDS)
    assert kept == [(PICTURES[1 - dangerous], SEEDS[1 - dangerous])]
    assert f"flagged picture {dangerous + 1} of 2 (seed {SEEDS[dangerous]})" in caplog.text


def _similarities(checker: SafetyChecker, pictures: list[Image.Image]) -> torch.Tensor:
    model = checker._model
    clip_input = checker._processor(pictures, return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = model.visual_projection(model.vision_model(clip_input)[1])
    return torch.nn.functional.cosine_similarity(embeds, model.concept_embeds[:1])
