import torch

from trainer.parts import drop_captions


def test_captions_are_dropped_as_often_as_asked_and_at_random():
    rows = torch.arange(4000) % 10
    generator = torch.Generator().manual_seed(0)
    dropped = drop_captions(rows, 0.25, 10, generator) == 10
    assert 0.22 < dropped.float().mean() < 0.28
    kept = drop_captions(rows, 0.25, 10, generator)
    assert torch.equal(kept[kept != 10], rows[kept != 10])
    assert not torch.equal(kept == 10, dropped)


def test_without_dropout_nothing_is_drawn():
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([2, 0])
    assert drop_captions(rows, 0.0, 10, generator) is rows
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())
