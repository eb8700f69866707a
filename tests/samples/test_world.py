"""The rendered world and its words."""

import numpy as np
import pytest

from samples.pocket import captions, toys
from samples.pocket.frame import Crop, Frame
from samples.pocket.noise import noise
from samples.pocket.render import scene, subject_scene, toy_scene
from samples.pocket.settings import SETTINGS, paint
from samples.pocket.styles import sticker_scene
from samples.pocket.toys import Toy


def _quartered(picture: np.ndarray) -> np.ndarray:
    return picture.reshape(128, 4, 128, 4, 3).astype(float).mean((1, 3))


def test_one_seed_is_one_scene():
    first, second = (scene(np.random.default_rng(5), crops=True) for _ in range(2))
    assert np.array_equal(first.picture, second.picture)
    assert first.scene == second.scene
    other = scene(np.random.default_rng(6))
    assert not np.array_equal(first.picture, other.picture)


def test_settings_are_finite_and_distinct():
    means = []
    for name in SETTINGS:
        picture, horizon = paint(name, Frame(64), np.random.default_rng(1))
        assert np.isfinite(picture).all()
        assert 34 <= horizon <= 56
        means.append(picture.mean((0, 1)))
    gaps = np.abs(np.array(means)[:, None] - np.array(means)[None]).sum(2)
    assert gaps[~np.eye(len(means), dtype=bool)].min() > 0.02


@pytest.mark.parametrize("seed", range(3))
def test_the_same_scene_at_512_looks_like_at_128(seed):
    small = scene(np.random.default_rng(seed)).picture.astype(float)
    large = scene(np.random.default_rng(seed), size=512).picture
    assert np.sqrt(((_quartered(large) - small) ** 2).mean()) < 4


def test_subject_at_512_looks_like_at_128():
    small = subject_scene(np.random.default_rng(3), "robot", "night")
    large = subject_scene(np.random.default_rng(3), "robot", "night", size=512)
    assert np.sqrt(((_quartered(large.picture) - small.picture) ** 2).mean()) < 4
    assert small.mask.max() == 1
    assert 0.03 < small.mask.mean() < 0.6


def test_a_crop_is_a_window_of_the_enlarged_scene():
    whole = paint("grass", Frame(256), np.random.default_rng(2))[0]
    cropped = paint("grass", Frame(128, Crop(2.0, 64, 32)), np.random.default_rng(2))[0]
    assert np.abs(whole[128:384, 64:320] - cropped).mean() < 0.01


def test_every_kind_can_be_seen():
    for kind in toys.KINDS:
        for pattern in ("plain", "striped", "dotted"):
            toy = Toy(kind, "red", "" if pattern == "plain" else "white", pattern)
            assert toy_scene(np.random.default_rng(0), toy, "floor").mask.sum() > 500


def test_random_toys_have_several_parts_and_other_colors():
    for seed in range(20):
        parts = toys.unnamed_parts(np.random.default_rng(seed))
        assert len(parts) >= 2
        assert not {m.color for _, m in parts} & set(toys.COLORS.values())


def test_random_toys_are_not_the_subjects():
    palettes = [{m.color for _, m in toys.subject_parts(s)} for s in toys.SUBJECTS]
    for seed in range(200):
        colors = {m.color for _, m in toys.unnamed_parts(np.random.default_rng(seed))}
        assert not any(colors & palette for palette in palettes)


def test_a_sticker_has_a_white_rim():
    toy = Toy("ball", "red")
    sticker = sticker_scene(np.random.default_rng(1), toy, "grass")
    plain = toy_scene(np.random.default_rng(1), toy, "grass")
    rim = (sticker.mask == 1) & (plain.mask == 0)
    assert rim.sum() > 200
    assert sticker.picture[rim].min() > 200


def test_noise_is_periodic_and_continuous():
    x = np.linspace(0, 100, 2001, dtype=np.float32)
    y = np.full_like(x, 3.3)
    values = noise("fine", x, y)
    assert np.allclose(values, noise("fine", x + 512, y - 512), atol=1e-2)
    assert np.abs(np.diff(values)).max() < 0.1


def test_captions_use_only_the_vocabulary():
    rng, known = np.random.default_rng(0), set(captions.vocabulary())
    seen: set[str] = set()
    for _ in range(300):
        content, _ = _content(rng)
        seen |= set(captions.caption(content, rng).replace(",", "").split())
    assert seen <= known


def _content(rng):
    from samples.pocket.render import _choose

    return _choose(rng, None, True)


def test_a_scene_is_worded_in_many_ways():
    rng = np.random.default_rng(0)
    content = scene(np.random.default_rng(1)).scene
    assert len({captions.caption(content, rng) for _ in range(30)}) > 15


def test_some_captions_have_a_made_up_word():
    rng, known = np.random.default_rng(0), set(captions.vocabulary())
    content = scene(np.random.default_rng(1)).scene
    noisy = [captions.noisy_caption(content, rng, share=1.0) for _ in range(20)]
    assert all(set(words.replace(",", "").split()) - known for words in noisy)
