from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from preprocess.manifest import Manifest
from sdxl.models import SDXLModels
from trainer.config import TrainConfig
from trainer.dataset import LatentDataset
from trainer.prior import captioned_as_class, find_class_pictures, make_class_pictures, open_some

PROMPT = "a photo of a ball"


def pixels(manifest: Manifest) -> list[np.ndarray]:
    return [np.asarray(picture) for picture in open_some(manifest)]


def test_the_base_makes_different_pictures_that_can_be_made_again(
    tiny_models: SDXLModels, tmp_path: Path
):
    def make(name: str, seed: int) -> Manifest:
        (tmp_path / name).mkdir()
        return make_class_pictures(tiny_models, PROMPT, 5, 64, seed, tmp_path / name)

    first, again, next_seed = make("a", 0), make("b", 0), make("c", 1)
    assert len(first.examples) == 5
    assert {example.caption for example in first.examples} == {PROMPT}
    assert all(np.array_equal(a, b) for a, b in zip(pixels(first), pixels(again), strict=True))
    assert not np.array_equal(pixels(first)[0], pixels(first)[1])
    # each has its seed: those of the next seed are the same, one further
    moved = np.abs(pixels(first)[1].astype(int) - pixels(next_seed)[0])
    assert moved.max() <= 1


def test_seeds_run_over_the_largest_into_zero(tiny_models: SDXLModels, tmp_path: Path):
    manifest = make_class_pictures(tiny_models, PROMPT, 2, 64, 2**32 - 1, tmp_path)
    assert len(manifest.examples) == 2


def test_they_can_be_encoded_like_any_picture(tiny_models: SDXLModels, tmp_path: Path):
    manifest = make_class_pictures(tiny_models, PROMPT, 2, 64, 0, tmp_path)
    dataset = LatentDataset(manifest, tiny_models.vae)
    assert dataset.captions == (PROMPT, PROMPT)


def test_the_users_own_are_taken_as_they_are_under_the_class_prompt(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest], tmp_path: Path
):
    own = make_manifest(3, caption="TOK, whatever")
    config = TrainConfig(class_prompt=PROMPT, num_class_images=9)
    found = find_class_pictures(own, tiny_models, config, tmp_path)
    assert found == captioned_as_class(own, PROMPT)
    assert [example.caption for example in found.examples] == [PROMPT] * 3
    with Image.open(own.directory / "0.png") as picture:
        assert np.array_equal(np.asarray(picture), pixels(found)[0])
