"""The judges, on true renders: what they say there must be right before samples are judged."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from samples.pocket import build, judges, toys
from samples.pocket.muon import MuonAdam, is_matrix, orthogonal
from samples.pocket.probes import SettingProbe, check_size
from samples.pocket.render import scene, subject_scene
from samples.pocket.settings import SETTINGS
from samples.pocket.training import learning_rate


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(build.BASE / "vae")


def test_the_subject_matches_better_than_other_toys(vae):
    judge = judges.SubjectJudge(vae, "robot", views=6)
    where = [SETTINGS[i % 8] for i in range(8)]
    rng = np.random.default_rng(9)
    true = np.stack([subject_scene(rng, "robot", w).picture for w in where])
    other = np.stack([subject_scene(rng, "monster", w).picture for w in where])
    assert judge.subject_match(true, where).mean() > judge.subject_match(other, where).mean() + 3
    assert judge.ceiling(8) > judge.floor(8) + 3
    assert np.array_equal(judge.subject_match(true, where), judge.subject_match(true, where))


def test_the_setting_is_read_from_true_renders(vae):
    probe = SettingProbe(vae, views=10)
    rng = np.random.default_rng(3)
    images = np.stack([scene(rng, where=name).picture for name in SETTINGS])
    assert probe.accuracy(images, SETTINGS) >= 7 / 8
    turned = [*SETTINGS[1:], SETTINGS[0]]
    assert probe.accuracy(images, turned) <= 1 / 8


def test_judges_refuse_pictures_of_another_size():
    with pytest.raises(ValueError, match="128"):
        check_size(np.zeros((1, 64, 64, 3), np.uint8))


def test_muon_makes_updates_orthogonal():
    matrices = torch.randn(3, 8, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_muon_leaves_unused_rows_alone_and_learns():
    torch.manual_seed(0)
    table, layer = torch.nn.Embedding(12, 16), torch.nn.Linear(16, 16)
    assert is_matrix(layer.weight)
    assert not is_matrix(layer.bias)
    optimizer = MuonAdam([*table.parameters(), *layer.parameters()], 1e-2, adam=[table.weight])
    before = table.weight[5].clone()
    losses = []
    for _ in range(200):
        loss = (layer(table(torch.arange(4))) - 1).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3
    assert torch.equal(table.weight[5], before)


def test_the_rate_warms_up_holds_and_falls():
    rates = [learning_rate(step, 100, 1.0, 10, hold=0.3) for step in range(100)]
    assert rates[0] < 0.2
    assert rates[20] == pytest.approx(1.01)
    assert rates[-1] < 0.02


def test_subjects_are_known():
    for name in toys.SUBJECTS:
        assert len(toys.subject_parts(name)) > 5
    with pytest.raises(KeyError):
        toys.subject_parts("nobody")
