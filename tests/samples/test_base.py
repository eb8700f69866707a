"""The exported base, and the command that makes it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from samples.pocket import build, captions, data, report
from samples.pocket.frame import Crop
from samples.pocket.models import encode_text, make_text_encoders, to_pictures, to_tensor
from samples.pocket.render import Scene
from samples.pocket.tokenizer import make_tokenizers
from samples.pocket.train_unet import time_ids, tokenize


@pytest.fixture(scope="module")
def base() -> StableDiffusionXLPipeline:
    return report.load(build.BASE)


def test_the_exported_base_is_a_small_sdxl(base):
    assert base.unet.config.addition_embed_type == "text_time"
    assert base.unet.config.sample_size * base.vae_scale_factor == 128
    assert base.vae_scale_factor == 8
    assert base.vae.config.latent_channels == 4
    assert 0.1 < base.vae.config.scaling_factor < 2
    assert type(base.scheduler).__name__ == "EulerDiscreteScheduler"
    assert base.config.force_zeros_for_empty_prompt
    assert base.watermark is None
    size = sum(p.stat().st_size for p in build.BASE.rglob("*") if p.is_file())
    assert size < 24e6


def test_end_ids_are_the_tokenizers_own(base):
    end = base.tokenizer.eos_token_id
    assert base.tokenizer_2.eos_token_id == end
    for encoder in (base.text_encoder, base.text_encoder_2):
        assert encoder.config.eos_token_id == end
        assert encoder.config.vocab_size == len(base.tokenizer)


def test_every_caption_word_is_one_token(base):
    for tokenizer in (base.tokenizer, base.tokenizer_2):
        for word in captions.vocabulary():
            assert len(tokenizer.tokenize(word)) == 1, word


def test_no_file_of_the_base_names_a_machine():
    for path in build.BASE.rglob("*.json"):
        assert "_name_or_path" not in json.loads(path.read_text(encoding="utf-8"))


def test_the_base_draws_what_is_asked(base):
    result = base(
        ["a photo of a red ball on the beach", "a photo of a blue cube in the snow"],
        num_inference_steps=12,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    beach, snow = result.images
    # The sky of the beach is bluer than the snow's, and the snow's ground is whiter than sand.
    assert beach[:30, :, 2].mean() - beach[:30, :, 0].mean() > 0.1
    assert snow[-20:].mean() > beach[-20:].mean()


def test_pooled_output_is_taken_at_the_first_end_token(tmp_path):
    tokenizers = make_tokenizers(tmp_path)
    first, second = make_text_encoders(tokenizers[0])
    full = tokenize(tokenizers, ["a red ball"], full=True)
    short = tokenize(tokenizers, ["a red ball"], full=False)
    assert full[0].shape[1] == 77
    assert short[0].shape[1] == 24
    with torch.no_grad():
        states, pooled = encode_text(first, second, full)
        fewer, pooled_short = encode_text(first, second, short)
    assert torch.allclose(pooled, pooled_short, atol=1e-5)
    assert torch.allclose(states[:, :24], fewer, atol=1e-5)


def test_time_ids_tell_size_and_crop():
    scenes = [Scene("grass"), Scene("snow", crop=Crop(1.25, 10, 20))]
    assert time_ids(scenes).tolist() == [
        [128, 128, 0, 0, 128, 128],
        [128, 128, 10, 20, 128, 128],
    ]
    varied = time_ids(scenes * 50, torch.Generator().manual_seed(0))
    assert 10 < (varied[:, 0] != 128).sum() < 60


def test_pictures_survive_the_networks_range():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    tensors = to_tensor(torch.from_numpy(pictures))
    assert np.array_equal(to_pictures(tensors).numpy(), pictures)


def test_build_runs_from_nothing_and_goes_on(tmp_path: Path):
    data.make(tmp_path / "data", 80, workers=1)
    plan = build.Plan(
        work=tmp_path,
        output=tmp_path / "base",
        pictures=80,
        vae_steps=2,
        unet_steps=1,
        decoder_steps=1,
        workers=1,
    )
    build.run(plan)
    pipeline = StableDiffusionXLPipeline.from_pretrained(plan.output)
    assert pipeline.unet.dtype == torch.float32
    again = build.Plan(
        work=tmp_path,
        output=tmp_path / "second",
        pictures=80,
        start=plan.output,
    )
    before = (tmp_path / "vae" / "config.json").stat().st_mtime_ns
    build.run(again)
    assert (tmp_path / "vae" / "config.json").stat().st_mtime_ns == before
    assert (again.output / "model_index.json").exists()


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path):
    from samples.pocket import train_vae

    pictures = np.random.default_rng(0).integers(0, 256, (72, 32, 32, 3), dtype=np.uint8)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    recipe = train_vae.VaeRecipe(4, batch=2, save_every=2)
    train_vae.train(whole, recipe, pictures)

    class StoppedError(Exception):
        pass

    def stop(*_):
        raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        original = train_vae._Trainer.step
        patch.setattr(
            train_vae._Trainer,
            "step",
            lambda trainer, step: stop() if step == 3 else original(trainer, step),
        )
        with pytest.raises(StoppedError):
            train_vae.train(parts, recipe, pictures)
    train_vae.train(parts, recipe, pictures)
    one, two = (torch.load(folder / "run.pt", weights_only=True) for folder in (whole, parts))
    assert one["step"] == two["step"] == 4
    for name, weights in one["average"].items():
        assert torch.allclose(weights, two["average"][name], atol=1e-6), name
