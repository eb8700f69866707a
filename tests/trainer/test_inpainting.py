import pytest
import torch

from sdxl.models import SDXLModels
from sdxl.pipeline import inpainting_channels
from trainer.inpainting import MASKS_PER_VIEW, masked_views, random_mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 32), (24, 96), (8, 8)])
def test_masks_hide_all_of_a_quarter_of_the_pictures_and_some_of_the_others(
    height: int, width: int
):
    source = generator()
    masks = torch.stack([random_mask(height, width, source) for _ in range(400)])
    assert masks.shape == (400, 1, height, width)
    assert masks.dtype == torch.float32
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    covered = masks.mean(dim=(1, 2, 3))
    whole = covered == 1.0
    assert 0.18 < whole.float().mean() < 0.32
    assert covered[~whole].min() >= 0.10
    assert covered[~whole].max() <= 0.60
    assert covered[~whole].std() > 0.05


def test_masks_have_straight_and_slanted_edges_anywhere():
    source = generator()
    masks = [random_mask(48, 48, source) for _ in range(300)]
    parts = torch.cat([mask for mask in masks if mask.mean() < 1])
    # every pixel is hidden at times, and shown at times; corners too
    often = parts.mean(dim=0)
    assert 0.03 < often.min() < often.max() < 0.6
    # in a mask of rectangles few rows differ from the row above; in one of strokes most do
    changes = (parts[:, 1:] != parts[:, :-1]).any(dim=2).float().mean(dim=1)
    assert changes.min() < 0.1
    assert changes.max() > 0.5


def test_masks_depend_on_the_seed_alone():
    assert torch.equal(random_mask(32, 32, generator(5)), random_mask(32, 32, generator(5)))
    different = {random_mask(32, 32, generator(seed)).sum().item() for seed in range(8)}
    assert len(different) > 4


def test_each_mask_comes_with_what_it_leaves_of_the_picture(tiny_models: SDXLModels):
    view = torch.rand(3, 32, 48) * 2 - 1
    views = masked_views(view, tiny_models.vae, generator())
    assert views.shape == (MASKS_PER_VIEW, 5, 4, 6)
    source = generator()
    for row in views:
        mask = random_mask(32, 48, source)[None]
        assert torch.equal(row, inpainting_channels(tiny_models.vae, view[None], mask)[0])
