from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.fine_tune import AppliedFineTune
from inference.generator import PictureGenerator
from inference.request import GenerationRequest
from inference.schedulers import SCHEDULERS, build_scheduler
from sdxl.concept import Concept
from sdxl.downloads import resolve_base
from sdxl.lora import LoraSettings, add_lora, lora_state_dict, remove_lora
from sdxl.lora_target import LORA_TARGET_MODULES
from sdxl.models import SDXLModels
from sdxl.pipeline import SamplerSettings, sample
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.trained import TrainedWeights
from tests.tiny_sdxl import load_tiny_sdxl

REQUEST = {
    "prompt": "a photo of TOK on the beach", "width": 64, "height": 64, "num_inference_steps": 2,
    "guidance_scale": 5.0, "lora_scale": 1.0,
}  # fmt: skip
RECORD: dict[str, object] = {"format_version": 1}
ATTENTION = LORA_TARGET_MODULES["attention"]


def make_weights(models: SDXLModels, seed: int = 0, record: dict | None = None) -> TrainedWeights:
    generator = torch.Generator().manual_seed(seed)
    add_lora(models.unet, ATTENTION, LoraSettings(rank=2, alpha=2), generator)
    lora = lora_state_dict(models.unet)
    remove_lora(models.unet)
    return TrainedWeights(
        concepts=(Concept.with_vectors("TOK", 2),),
        embeddings=PlaceholderEmbeddings.random(("<s0>", "<s1>"), models, generator),
        lora={k: torch.randn(v.shape, generator=generator) for k, v in lora.items()},
        record=RECORD if record is None else record,
    )


@pytest.fixture
def weights(tiny_sdxl_dir: Path) -> TrainedWeights:
    return make_weights(load_tiny_sdxl(tiny_sdxl_dir))


@pytest.fixture
def generator(tiny_sdxl_dir: Path, weights: TrainedWeights) -> PictureGenerator:
    return PictureGenerator(resolve_base(str(tiny_sdxl_dir)), weights)


def pixels(pictures: list[Image.Image]) -> list[np.ndarray]:
    return [np.asarray(picture) for picture in pictures]


def make(generator: PictureGenerator, **changes: object) -> list[np.ndarray]:
    return pixels(generator.generate(GenerationRequest(**{**REQUEST, **changes})))


def test_the_same_request_gives_the_same_pictures(generator: PictureGenerator):
    assert np.array_equal(make(generator)[0], make(generator)[0])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a photo of TOK in the snow"},
        {"negative_prompt": "a red ball"},
        {"seed": 1},
        {"num_inference_steps": 3},
        {"guidance_scale": 2.0},
        {"lora_scale": 0.5},
        {"scheduler": "DDIM"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_input_acts_on_the_picture(generator: PictureGenerator, change: dict):
    assert not np.array_equal(make(generator)[0], make(generator, **change)[0])


def test_sizes_are_as_asked_and_else_the_bases_own(generator: PictureGenerator):
    assert make(generator, width=96, height=72)[0].shape == (72, 96, 3)
    assert make(generator, width=None, height=None)[0].shape == (32, 32, 3)


def test_each_output_has_its_own_seed_and_can_be_made_again_alone(generator: PictureGenerator):
    three = make(generator, num_outputs=3, seed=10)
    assert len(three) == 3
    alone = make(generator, seed=12)[0]
    # batches may round differently: one step of 255
    assert np.abs(three[2].astype(int) - alone.astype(int)).max() <= 1
    assert not np.array_equal(three[0], three[1])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_makes_a_picture(generator: PictureGenerator, name: str):
    picture = make(generator, scheduler=name, num_inference_steps=4)[0]
    assert picture.std() > 0


def test_a_half_precision_base_decodes_in_float32_as_on_a_gpu(
    tiny_sdxl_dir: Path, weights: TrainedWeights
):
    models = load_tiny_sdxl(tiny_sdxl_dir, torch.bfloat16)
    AppliedFineTune(weights, models)
    settings = SamplerSettings(height_px=64, width_px=64, num_inference_steps=2, guidance_scale=2.0)
    scheduler = build_scheduler("K_EULER", models.scheduler_config)
    half = sample(models, scheduler, ["a <s0><s1>"] * 2, [0, 1], settings)
    assert models.vae.dtype == torch.float32
    assert all(picture.size == (64, 64) and np.asarray(picture).std() > 0 for picture in half)


def test_an_unknown_scheduler_is_refused_with_those_that_exist(generator: PictureGenerator):
    with pytest.raises(ValueError, match=r"scheduler must be one of DDIM, .*got 'EULER'"):
        make(generator, scheduler="EULER")


def test_the_trigger_means_nothing_to_the_base(tiny_sdxl_dir: Path, generator: PictureGenerator):
    base = PictureGenerator(resolve_base(str(tiny_sdxl_dir)), None)
    assert not np.array_equal(make(base)[0], make(generator)[0])


def test_old_archives_keep_their_pooling(tiny_sdxl_dir: Path, weights: TrainedWeights):
    models = load_tiny_sdxl(tiny_sdxl_dir)
    old = make_weights(models, record={})
    assert torch.equal(old.lora[next(iter(old.lora))], weights.lora[next(iter(weights.lora))])
    pictures = [
        make(PictureGenerator(resolve_base(str(tiny_sdxl_dir)), w))[0] for w in (old, weights)
    ]
    assert not np.array_equal(*pictures)


def test_a_prompt_without_the_trigger_is_warned_of(
    generator: PictureGenerator, caplog: pytest.LogCaptureFixture
):
    make(generator)
    assert "does not contain" not in caplog.text
    make(generator, prompt="a photo of tok, TOKYO")
    assert "does not contain TOK" in caplog.text


def outputs(models: SDXLModels) -> torch.Tensor:
    from sdxl.prompt import encode_prompts

    prompt = encode_prompts(["a red ball"], models)
    with torch.no_grad():
        return models.unet(
            torch.ones(1, 4, 4, 4),
            torch.tensor([10]),
            prompt.prompt_embeds,
            added_cond_kwargs={
                "text_embeds": prompt.pooled_prompt_embeds,
                "time_ids": torch.ones(1, 6),
            },
        ).sample


@pytest.mark.parametrize("kind", ["lora", "unet"])
def test_a_removed_fine_tune_leaves_the_base_bit_for_bit(
    tiny_models: SDXLModels, weights: TrainedWeights, kind: str
):
    if kind == "unet":
        unet = {k: v + 0.1 for k, v in tiny_models.unet.state_dict().items() if "attn" in k}
        weights = TrainedWeights(
            concepts=weights.concepts, embeddings=weights.embeddings, unet=unet, record=RECORD
        )
    before = outputs(tiny_models)
    applied = AppliedFineTune(weights, tiny_models)
    assert not torch.equal(outputs(tiny_models), before)
    applied.remove()
    assert torch.equal(outputs(tiny_models), before)


def test_a_fine_tune_that_does_not_fit_leaves_the_base_as_it_was(
    tiny_models: SDXLModels, weights: TrainedWeights
):
    before = outputs(tiny_models)
    foreign = TrainedWeights(
        concepts=weights.concepts,
        embeddings=PlaceholderEmbeddings(
            ("<s0>", "<s1>"), torch.zeros(2, 768), torch.zeros(2, 1280)
        ),
        lora=weights.lora,
    )
    with pytest.raises(ValueError, match="another base model"):
        AppliedFineTune(foreign, tiny_models)
    assert torch.equal(outputs(tiny_models), before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 100}, "width must be a multiple of 8 from 64 to 2048, got 100"),
        ({"height": 4096}, "height must be a multiple of 8"),
        ({"num_outputs": 0}, "num_outputs must be from 1 to 4, got 0"),
        ({"num_inference_steps": 0}, "num_inference_steps must be from 1 to 500"),
        ({"guidance_scale": 0.5}, "guidance_scale must be from 1 to 50"),
        ({"seed": -1}, "seed must be from 0"),
        ({"lora_scale": 1.5}, "lora_scale must be from 0 to 1"),
    ],
)
def test_a_request_out_of_range_is_refused_by_its_input(values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        GenerationRequest(prompt="x", **values)


def test_seed_zero_is_a_seed(generator: PictureGenerator):
    assert np.array_equal(make(generator, seed=0)[0], make(generator)[0])
    assert list(GenerationRequest(prompt="x", seed=0, num_outputs=2).seeds) == [0, 1]
