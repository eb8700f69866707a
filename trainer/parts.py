"""What a micro-batch is made of: the pictures, and with prior preservation those of the class."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import TrainConfig
from trainer.dataset import LatentDataset


@dataclass(frozen=True, slots=True)
class TrainingPart:
    """A set of pictures of which every micro-batch holds some.

    Attributes:
        dataset: The pictures with their captions.
        order: The indices of batch after batch, without end.
        first_caption: Where its captions begin among those of all parts.
        caption_dropout: Part of its captions that are replaced by the empty text.
        loss_weight: What its loss counts.
    """

    dataset: LatentDataset
    order: Iterator[list[int]]
    first_caption: int
    caption_dropout: float
    loss_weight: float


def training_parts(
    dataset: LatentDataset, class_dataset: LatentDataset | None, config: TrainConfig
) -> list[TrainingPart]:
    """Return the pictures and, if there are any, those of the class, each in its own order."""

    def order(pictures: LatentDataset, seed: int) -> Iterator[list[int]]:
        return pictures.batches(config.train_batch_size, torch.Generator().manual_seed(seed))

    parts = [TrainingPart(dataset, order(dataset, config.seed), 0, config.caption_dropout, 1.0)]
    if class_dataset:
        class_order = order(class_dataset, config.seed + 1)
        weight = config.prior_loss_weight
        parts.append(TrainingPart(class_dataset, class_order, len(dataset), 0.0, weight))
    return parts


def drop_captions(
    rows: Tensor, probability: float, empty_row: int, generator: torch.Generator
) -> Tensor:
    """Replace some of `rows` by `empty_row` (classifier-free guidance, arXiv:2207.12598).

    Args:
        rows: (B,) int64, into the captions.
        probability: Of each being replaced; 0 leaves the generator alone.
        empty_row: Of the empty text.
        generator: On the device of `rows`.
    """
    if probability == 0:
        return rows
    dropped = torch.rand(rows.shape, generator=generator, device=rows.device) < probability
    return torch.where(dropped, empty_row, rows)
