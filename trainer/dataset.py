"""The prepared pictures as cached latents, and the order in which they are trained.

N = pictures, B = batch, h, w = latent cells (1/8 of the pixels of a picture).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn import functional

from preprocess.manifest import Manifest, TrainingExample
from sdxl.conditioning import time_ids
from trainer.inpainting import MASKS_PER_VIEW, masked_views


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of one size, ready for the U-Net.

    Attributes:
        latents: (B, 4, h, w) float32, scaled by the VAE's scaling_factor.
        time_ids: (B, 6) float32, SDXL's size and crop conditioning.
        mask: (B, 1, h, w) float32 in [0, 1], what of the loss counts; None if no picture has one.
        index: (B,) int64, which picture of the manifest each row is.
        inpainting: (B, 1 + 4, h, w) float32, what an inpainting U-Net sees beside the latents: a
            random mask, 1 to be repainted, and the latents of the masked picture; None for others.
    """

    latents: Tensor
    time_ids: Tensor
    mask: Tensor | None
    index: Tensor
    inpainting: Tensor | None = None


class LatentDataset:
    """All pictures of a manifest as latents on the device, kept as mean and standard deviation.

    Every batch samples the VAE's posterior anew, as training without a cache would.
    """

    def __init__(
        self,
        manifest: Manifest,
        vae: AutoencoderKL,
        horizontal_flip: bool = False,
        mask_generator: torch.Generator | None = None,
    ) -> None:
        """Encode every picture once, one at a time, on the VAE's device.

        Args:
            manifest: The prepared pictures.
            vae: Of the base model.
            horizontal_flip: Encode each picture's mirror image too; a batch takes either by chance.
            mask_generator: On the CPU. An inpainting base needs it: each view gets random masks,
                of which a batch takes one by chance.
        """
        self.captions = tuple(example.caption for example in manifest.examples)
        self._sizes = [example.target_size for example in manifest.examples]
        self._scaling_factor: float = vae.config["scaling_factor"]
        device = vae.device
        self._means, self._stds, masks = [], [], []
        self._inpainting: list[Tensor] = []
        for example in manifest.examples:
            views = _views(_read_picture(manifest, example), horizontal_flip)
            with torch.no_grad():
                posteriors = [
                    vae.encode(view[None].to(device, vae.dtype)).latent_dist for view in views
                ]
            self._means.append(torch.cat([posterior.mean.float() for posterior in posteriors]))
            self._stds.append(torch.cat([posterior.std.float() for posterior in posteriors]))
            if mask_generator is not None:
                repaints = [masked_views(view, vae, mask_generator) for view in views]
                self._inpainting.append(torch.stack(repaints))
            mask = _read_mask(manifest, example, self._means[-1].shape[-2:])
            masks.append(torch.stack(_views(mask, horizontal_flip)).to(device))
        has_masks = any(example.mask_path for example in manifest.examples)
        self._masks = masks if has_masks else None
        rows = [
            torch.stack(
                [
                    time_ids(example.original_size, corner, example.target_size)
                    for corner in _crop_corners(example, horizontal_flip)
                ]
            )
            for example in manifest.examples
        ]
        self._time_ids = torch.stack(rows).to(device)
        self._indices = torch.arange(len(self.captions), device=device)

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.captions)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Return the named pictures, which must be of one size. Never waits for the device.

        Args:
            indices: Into the manifest.
            generator: On the dataset's device, for mirroring, the sample of the VAE's posterior and
                the choice of a mask.
        """
        device = self._time_ids.device
        row = torch.arange(len(indices), device=device)
        # gathered on the device: to copy the list there would wait for all work under way
        index = torch.stack([self._indices[i] for i in indices])
        num_views = self._time_ids.shape[1]
        view = torch.randint(num_views, row.shape, generator=generator, device=device)
        mean = torch.stack([self._means[i] for i in indices])[row, view]
        std = torch.stack([self._stds[i] for i in indices])[row, view]
        noise = torch.randn(mean.shape, generator=generator, device=device)
        masks = torch.stack([self._masks[i] for i in indices]) if self._masks else None
        return Batch(
            latents=(mean + std * noise) * self._scaling_factor,
            time_ids=self._time_ids[index, view],
            mask=None if masks is None else masks[row, view],
            index=index,
            inpainting=self._draw_masks(indices, row, view, generator),
        )

    def _draw_masks(
        self, indices: Sequence[int], row: Tensor, view: Tensor, generator: torch.Generator
    ) -> Tensor | None:
        if not self._inpainting:
            return None
        choice = torch.randint(MASKS_PER_VIEW, row.shape, generator=generator, device=row.device)
        return torch.stack([self._inpainting[i] for i in indices])[row, view, choice]

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Yield the indices of batch after batch, without end; see `batch_order`."""
        return batch_order(self._sizes, batch_size, generator)


def batch_order(
    sizes: Sequence[tuple[int, int]], batch_size: int, generator: torch.Generator
) -> Iterator[list[int]]:
    """Yield lists of `batch_size` indices of pictures of one size, without end.

    Each epoch shuffles all pictures; those that do not fill a batch wait for the next epoch's. So
    every picture is seen equally often, none is dropped, sizes never mix, and a set smaller than
    the batch works too.

    Args:
        sizes: (height, width) of each picture.
        batch_size: Of every batch.
        generator: On the CPU.
    """
    waiting: dict[tuple[int, int], list[int]] = defaultdict(list)
    while True:
        for index in torch.randperm(len(sizes), generator=generator).tolist():
            batch = waiting[sizes[index]]
            batch.append(index)
            if len(batch) == batch_size:
                yield batch
                waiting[sizes[index]] = []


def _views(picture: Tensor, horizontal_flip: bool) -> list[Tensor]:
    """Return (C, H, W) as it is and, if asked for, mirrored left to right."""
    return [picture, picture.flip(-1)] if horizontal_flip else [picture]


def _crop_corners(example: TrainingExample, horizontal_flip: bool) -> list[tuple[int, int]]:
    """Return (top, left) of the crop for each view: mirrored, it is as far from the right edge."""
    if not horizontal_flip:
        return [example.crop_top_left]
    (height, width), (target_height, target_width) = example.original_size, example.target_size
    resized_width = round(width * max(target_height / height, target_width / width))
    top, left = example.crop_top_left
    return [(top, left), (top, max(0, resized_width - target_width - left))]


def _read_picture(manifest: Manifest, example: TrainingExample) -> Tensor:
    """Return (3, H, W) float32 in [-1, 1]."""
    with Image.open(manifest.directory / example.image_path) as picture:
        values = np.asarray(picture, dtype=np.float32)
    assert values.shape == (*example.target_size, 3), (example.image_path, values.shape)
    return torch.from_numpy(values).permute(2, 0, 1) / 127.5 - 1.0


def _read_mask(manifest: Manifest, example: TrainingExample, latent_size: torch.Size) -> Tensor:
    """Return (1, h, w) float32 in [0, 1]: the mean of the mask over each latent cell."""
    if example.mask_path is None:
        return torch.ones(1, *latent_size)
    with Image.open(manifest.directory / example.mask_path) as picture:
        values = torch.from_numpy(np.asarray(picture, dtype=np.float32)) / 255.0
    assert values.shape == example.target_size, (example.mask_path, values.shape)
    return functional.adaptive_avg_pool2d(values[None], latent_size)
