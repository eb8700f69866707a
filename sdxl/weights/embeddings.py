"""Embeddings for web UIs: `clip_l` and `clip_g`, in a file of their own or within a LoRA's."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sdxl.concept import Concept
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.trained import TrainedWeights

EMBEDDING_SUFFIX = "_embedding"
"""Ends the names of our files, since the LoRA beside them has the trigger's name."""

_BUNDLED = re.compile(r"bundle_emb\.(.+)\.([^.]+)")
_ROWS = ("clip_l", "clip_g")
Rows = dict[str, dict[str, Tensor]]
"""By trigger: `clip_l` and `clip_g`."""


def embedding_tensors(weights: TrainedWeights) -> Rows:
    """Return each concept's rows, as float16."""
    embeddings = weights.embeddings
    if embeddings is None:
        return {}
    rows = {
        concept.trigger: [embeddings.tokens.index(token) for token in concept.placeholder_tokens]
        for concept in weights.concepts
    }
    return {
        trigger: {
            "clip_l": embeddings.clip_l[numbers].half(),
            "clip_g": embeddings.clip_g[numbers].half(),
        }
        for trigger, numbers in rows.items()
    }


def bundled(rows: Rows) -> dict[str, Tensor]:
    """Return the tensors under the names that they have within a LoRA's file."""
    return {
        f"bundle_emb.{trigger}.{name}": value
        for trigger, tensors in rows.items()
        for name, value in tensors.items()
    }


def take_embeddings(tensors: dict[str, Tensor], file_name: str) -> Rows:
    """Take the embeddings out of a file's tensors; those that are left are a LoRA's.

    Args:
        tensors: Changed in place.
        file_name: Without ending; it is the trigger of an embedding that is a file of its own.
    """
    rows: Rows = {}
    if "clip_l" in tensors or "clip_g" in tensors:
        rows[file_name.removesuffix(EMBEDDING_SUFFIX)] = dict(tensors)
        tensors.clear()
    for key in list(tensors):
        if match := _BUNDLED.fullmatch(key):
            rows.setdefault(match[1], {})[match[2]] = tensors.pop(key)
    return rows


def join_embeddings(
    rows: Mapping[str, Mapping[str, Tensor]],
) -> tuple[tuple[Concept, ...], PlaceholderEmbeddings | None]:
    """Return the concepts and the table of their rows.

    Raises:
        ValueError: A concept has other tensors than SDXL's two, or they do not fit together.
    """
    concepts: list[Concept] = []
    for trigger, tensors in rows.items():
        if set(tensors) != set(_ROWS):
            raise ValueError(
                f"the embedding {trigger} has {', '.join(sorted(tensors))}: an SDXL's has clip_l "
                "and clip_g, for its two text encoders, and nothing else is read"
            )
        clip_l, clip_g = (tensors[name] for name in _ROWS)
        if clip_l.ndim != 2 or clip_g.ndim != 2 or len(clip_l) != len(clip_g):
            raise ValueError(
                f"the embedding {trigger} is broken: clip_l is {tuple(clip_l.shape)} and clip_g "
                f"{tuple(clip_g.shape)}, not one row of each for every vector"
            )
        first = sum(len(concept.placeholder_tokens) for concept in concepts)
        concepts.append(Concept.with_vectors(trigger, len(clip_l), first))
    if not concepts:
        return (), None
    tokens = tuple(token for concept in concepts for token in concept.placeholder_tokens)
    clip_l, clip_g = (
        torch.cat([tensors[name].float() for tensors in rows.values()]) for name in _ROWS
    )
    return tuple(concepts), PlaceholderEmbeddings(tokens, clip_l, clip_g)
