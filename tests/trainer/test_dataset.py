from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from preprocess.manifest import Manifest
from sdxl.models import SDXLModels
from trainer.dataset import LatentDataset, batch_order
from trainer.inpainting import MASKS_PER_VIEW, masked_views


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_latents_have_the_size_of_the_pictures_and_size_conditioning_tells_it(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]
):
    dataset = LatentDataset(make_manifest(size=(48, 64)), tiny_models.vae)
    batch = dataset.batch([1, 0], generator())
    assert batch.latents.shape == (2, 4, 6, 8)
    # height and width before, top and left of the crop, height and width after
    assert batch.time_ids.tolist() == [[96, 192, 0, 1, 48, 64], [96, 192, 0, 0, 48, 64]]
    assert batch.time_ids.dtype == torch.float32


def test_cached_latents_follow_their_picture_and_caption(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]
):
    manifest = make_manifest(4)
    examples = tuple(replace(e, caption=f"TOK {e.example_id}") for e in manifest.examples)
    dataset = LatentDataset(replace(manifest, examples=examples), tiny_models.vae)
    for indices in ([3, 1], [0, 2]):
        batch = dataset.batch(indices, generator())
        assert batch.index.tolist() == indices
        assert [dataset.captions[i] for i in batch.index] == [f"TOK {i}" for i in indices]
        for row, i in enumerate(indices):
            with Image.open(manifest.directory / f"{i}.png") as picture:
                pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32))
            with torch.no_grad():
                posterior = tiny_models.vae.encode(
                    pixels.permute(2, 0, 1)[None] / 127.5 - 1
                ).latent_dist
            spread = posterior.std.max() * 0.5 * 5
            assert (batch.latents[row] - posterior.mean[0] * 0.5).abs().max() < spread


def test_latents_are_sampled_anew_and_reproducibly(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]
):
    dataset = LatentDataset(make_manifest(1), tiny_models.vae)
    source = generator()
    first, second = dataset.batch([0], source).latents, dataset.batch([0], source).latents
    assert not torch.equal(first, second)
    assert torch.equal(first, dataset.batch([0], generator()).latents)


def test_mirrored_pictures_bring_their_mask_and_the_corner_of_their_crop(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]
):
    manifest = make_manifest(1)
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[:, :8] = 255
    Image.fromarray(mask).save(manifest.directory / "mask.png")
    example = replace(
        manifest.examples[0], mask_path="mask.png", original_size=(64, 128), crop_top_left=(0, 20)
    )
    manifest = replace(manifest, examples=(example,))
    batch = LatentDataset(manifest, tiny_models.vae, True).batch([0] * 16, generator())
    assert batch.mask is not None
    mirrored = batch.mask[:, 0, 0, -1] == 1.0
    assert 0 < mirrored.sum() < 16
    # the resized picture is 64 px wide: 20 px from the left are 12 px from the right
    assert batch.time_ids[:, 3].tolist() == [12.0 if m else 20.0 for m in mirrored]
    near, far = batch.latents[~mirrored], batch.latents[mirrored]
    assert (near[0] - near[1]).abs().mean() < (near[0] - far[0]).abs().mean()


def test_a_mask_reaches_the_latent_cells_and_pictures_without_one_count_whole(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]
):
    manifest = make_manifest(2)
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[:8, :8], mask[8:16, :4] = 255, 255
    Image.fromarray(mask).save(manifest.directory / "mask.png")
    examples = (replace(manifest.examples[0], mask_path="mask.png"), manifest.examples[1])
    dataset = LatentDataset(replace(manifest, examples=examples), tiny_models.vae)
    batch = dataset.batch([0, 1], generator())
    assert batch.mask is not None
    expected = torch.zeros(1, 4, 4)
    expected[0, 0, 0], expected[0, 1, 0] = 1.0, 0.5
    assert torch.equal(batch.mask[0], expected)
    assert torch.equal(batch.mask[1], torch.ones(1, 4, 4))


def test_without_any_mask_a_batch_has_none(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]
):
    assert LatentDataset(make_manifest(1), tiny_models.vae).batch([0], generator()).mask is None


def test_an_inpainting_batch_has_a_mask_of_each_picture_and_the_rest_of_that_picture(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]
):
    manifest = make_manifest(2)
    dataset = LatentDataset(manifest, tiny_models.vae, True, generator(7))
    batch = dataset.batch([1, 0] * 16, generator())
    assert batch.inpainting is not None
    assert batch.inpainting.shape == (32, 5, 4, 4)
    source, choices = generator(7), {}
    for i in range(2):
        with Image.open(manifest.directory / f"{i}.png") as picture:
            pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32)).permute(2, 0, 1)
        view = pixels / 127.5 - 1
        choices[i] = [masked_views(v, tiny_models.vae, source) for v in (view, view.flip(-1))]
    drawn = set()
    for row, i in zip(batch.inpainting, batch.index.tolist(), strict=True):
        found = [
            (i, side, k)
            for side, masks in enumerate(choices[i])
            for k in range(MASKS_PER_VIEW)
            if torch.equal(masks[k], row)
        ]
        assert found
        drawn.update(found)
    assert {side for _, side, _ in drawn} == {0, 1}
    assert len({k for _, _, k in drawn}) > 2


def test_the_masks_of_a_batch_follow_the_mirroring_of_its_latents(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]
):
    dataset = LatentDataset(make_manifest(1), tiny_models.vae, True, generator(7))
    dataset._inpainting[0][0], dataset._inpainting[0][1] = 0.0, 1.0
    batch = dataset.batch([0] * 16, generator())
    assert batch.inpainting is not None
    mirrored = batch.inpainting[:, 0, 0, 0] == 1.0
    assert 0 < mirrored.sum() < 16
    near, far = batch.latents[~mirrored], batch.latents[mirrored]
    assert (near[0] - near[1]).abs().mean() < (near[0] - far[0]).abs().mean()


def test_masks_change_nothing_else_that_is_drawn(
    tiny_models: SDXLModels, make_manifest: Callable[..., Manifest]
):
    plain = LatentDataset(make_manifest(3), tiny_models.vae, True)
    masked = LatentDataset(make_manifest(3), tiny_models.vae, True, generator(7))
    ours, theirs = plain.batch([2, 0], generator()), masked.batch([2, 0], generator())
    assert ours.inpainting is None
    assert torch.equal(ours.latents, theirs.latents)
    assert torch.equal(ours.time_ids, theirs.time_ids)


@pytest.mark.parametrize(("num", "batch_size"), [(10, 4), (3, 4), (1, 4), (5, 5), (7, 1)])
def test_every_picture_is_seen_equally_often_with_any_batch_size(num: int, batch_size: int):
    order = batch_order([(8, 8)] * num, batch_size, generator())
    batches = list(islice(order, 2 * num))  # 2 * batch_size epochs exactly
    assert all(len(batch) == batch_size for batch in batches)
    assert Counter(i for batch in batches for i in batch) == dict.fromkeys(
        range(num), 2 * batch_size
    )


def test_sizes_never_mix_in_a_batch_and_none_is_left_out():
    sizes = [(8, 8)] * 5 + [(8, 16)] * 2 + [(16, 8)]
    batches = list(islice(batch_order(sizes, 2, generator()), 40))
    assert all(len({sizes[i] for i in batch}) == 1 for batch in batches)
    seen = Counter(i for batch in batches for i in batch)
    assert max(seen.values()) - min(seen.values()) <= 2
    assert len(seen) == len(sizes)


def test_the_order_depends_on_the_seed_alone():
    def first(seed: int) -> list[list[int]]:
        return list(islice(batch_order([(8, 8)] * 9, 3, generator(seed)), 6))

    assert first(0) == first(0)
    assert first(0) != first(1)
