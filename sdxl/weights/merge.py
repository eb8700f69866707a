"""Several LoRAs as one, which acts exactly as all of them together at their weights.

w_1 B_1 A_1 + w_2 B_2 A_2 = [w_1 B_1, w_2 B_2] [A_1; A_2]: the matrices stand beside each other, so
that the ranks add up. `sdxl.weights.resize` makes the result smaller.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from sdxl.concept import Concept
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.lora_pairs import LoraPair, join_pairs, split_pairs
from sdxl.weights.trained import FORMAT_VERSION, TrainedWeights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeInput:
    """One of the files that become one.

    Attributes:
        name: Of the file, for messages and the record.
        weights: Its content.
        weight: At which its LoRA acts; embeddings have no weight.
        triggers: New triggers by old ones.
    """

    name: str
    weights: TrainedWeights
    weight: float = 1.0
    triggers: Mapping[str, str] = field(default_factory=dict)


def merge_weights(inputs: Sequence[MergeInput]) -> TrainedWeights:
    """Return weights that act as all inputs together.

    The placeholder tokens are numbered anew, those of the first input first, so that every trigger
    lives on.

    Raises:
        ValueError: Less than two inputs; one has a whole U-Net or DoRA; a layer has different
            shapes; a trigger occurs twice, or one to be renamed does not occur.
    """
    if len(inputs) < 2:
        raise ValueError(f"merging takes at least 2 files, got {len(inputs)}")
    for each in inputs:
        if each.weights.unet:
            raise ValueError(f"{each.name} is a whole U-Net: only LoRAs can be merged")
    concepts, embeddings = merge_concepts(inputs)
    return TrainedWeights(
        concepts=concepts,
        embeddings=embeddings,
        lora=merge_lora([(each.weights.lora, each.weight) for each in inputs]),
        text_encoder_lora=merge_lora(
            [(each.weights.text_encoder_lora, each.weight) for each in inputs]
        ),
        text_encoder_2_lora=merge_lora(
            [(each.weights.text_encoder_2_lora, each.weight) for each in inputs]
        ),
        record=_merged_record(inputs),
    )


def merge_lora(states: Sequence[tuple[dict[str, Tensor], float]]) -> dict[str, Tensor]:
    """Return the state whose B A is the sum of `weight * B A` of all, layer by layer.

    Args:
        states: By peft's keys, acting as B A, each with its weight, which goes into B.

    Raises:
        ValueError: A state has DoRA or another method, or two have a layer of different shapes.
    """
    found: dict[str, list[LoraPair]] = {}
    for state, weight in states:
        for path, layer in split_pairs(state).items():
            if layer.magnitude is not None:
                raise ValueError(
                    f"the layer {path} has DoRA, whose lengths are those of finished weights and "
                    "cannot be added up: bake one of the files into a base model instead"
                )
            weighted = replace(layer, up=layer.up * weight)
            found.setdefault(path, []).append(weighted)
    return join_pairs({path: _concatenated(path, layers) for path, layers in found.items()})


def _concatenated(path: str, layers: Sequence[LoraPair]) -> LoraPair:
    shapes = {layer.weight_shape for layer in layers}
    if len(shapes) > 1:
        raise ValueError(
            f"the layer {path} has different shapes in the files, {sorted(shapes)} (outputs, "
            "inputs): they were trained on different base models"
        )
    return LoraPair(
        torch.cat([layer.down for layer in layers]),
        torch.cat([layer.up for layer in layers], dim=1),
    )


def merge_concepts(
    inputs: Sequence[MergeInput],
) -> tuple[tuple[Concept, ...], PlaceholderEmbeddings | None]:
    """Return all concepts, their tokens numbered anew, and all rows; None where no input has any.

    Raises:
        ValueError: A trigger occurs twice, one to be renamed does not occur, or rows of different
            base models meet.
    """
    concepts: list[Concept] = []
    owners: dict[str, str] = {}
    tables: list[PlaceholderEmbeddings] = []
    for each in inputs:
        first = sum(len(table.tokens) for table in tables)
        for concept in _numbered_from(first, each):
            if concept.trigger in owners:
                raise ValueError(
                    f"{owners[concept.trigger]} and {each.name} both have the trigger "
                    f"{concept.trigger}: rename one of them, as in {each.name}:{each.weight:g}:"
                    f"{concept.trigger}={concept.trigger}2"
                )
            owners[concept.trigger] = each.name
            concepts.append(concept)
        if each.weights.embeddings is not None:
            tables.append(each.weights.embeddings)
    widths = {(table.clip_l.shape[1], table.clip_g.shape[1]) for table in tables}
    if len(widths) > 1:
        raise ValueError(
            f"the embeddings of the files have different widths, {sorted(widths)}: they were "
            "trained on different base models"
        )
    if not tables:
        return (), None
    return tuple(concepts), PlaceholderEmbeddings(
        tuple(f"<s{i}>" for i in range(sum(len(table.tokens) for table in tables))),
        torch.cat([table.clip_l.float() for table in tables]),
        torch.cat([table.clip_g.float() for table in tables]),
    )


def _numbered_from(first: int, each: MergeInput) -> list[Concept]:
    """Return the concepts of an input under their new triggers; its row i is `<s{first + i}>`."""
    weights = each.weights
    known = [concept.trigger for concept in weights.concepts]
    unknown = each.triggers.keys() - set(known)
    if unknown:
        raise ValueError(
            f"{each.name} has no trigger {min(unknown)} to rename (it has: "
            f"{', '.join(known) or 'none'})"
        )
    rows = weights.embeddings.tokens if weights.embeddings else ()
    return [
        Concept(
            trigger=each.triggers.get(concept.trigger, concept.trigger),
            placeholder_tokens=tuple(
                f"<s{first + rows.index(token)}>" for token in concept.placeholder_tokens
            ),
        )
        for concept in weights.concepts
    ]


def _merged_record(inputs: Sequence[MergeInput]) -> dict[str, object]:
    """Return what is known of the inputs; the first with a trigger decides where to pool.

    Weights that pool at the placeholder token are known by having no record.
    """
    with_trigger = [each for each in inputs if each.weights.concepts]
    if len({each.weights.pooling for each in with_trigger}) > 1:
        logger.warning(
            "the files were trained with different poolings of the prompt (cog-sdxl's and ours): "
            "the merged one has that of %s",
            with_trigger[0].name,
        )
    if with_trigger and with_trigger[0].weights.pooling == "highest_token_id":
        return {}
    bases = [each.weights.base_model for each in inputs if each.weights.base_model]
    merged = [
        {
            "file": Path(each.name).name,
            "weight": each.weight,
            "base_model": each.weights.base_model,
            "settings": each.weights.record.get("settings", {}),
        }
        for each in inputs
    ]
    base = {"base_model": bases[0]} if bases else {}
    return {"format_version": FORMAT_VERSION, **base, "merged": merged}
