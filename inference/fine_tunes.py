"""Trained weights inside a model: what a request asks for, exactly that, and nothing of before."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from inference.lora_slots import LoraSlots
from sdxl.concept import Concept
from sdxl.lora import check_lora_fits
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import BaseVocabulary
from sdxl.prompt import Pooling
from sdxl.weights.merge import MergeInput, merge_concepts
from sdxl.weights.networks import check_unet_fits, lora_by_network, unet_shapes
from sdxl.weights.trained import TrainedWeights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FineTune:
    """One of the trained weights of a request.

    Attributes:
        name: What messages call it.
        weights: The same object means the same weights.
        scale: At which its LoRA acts; embeddings and a whole U-Net have no scale.
    """

    name: str
    weights: TrainedWeights
    scale: float = 1.0


class FineTunes:
    """A model's fine-tunes, of which `apply` makes exactly those act that it is given.

    Whatever happened before, the model with no fine-tunes is bit for bit the base, and with some it
    is what a fresh model with them would be. A change that was interrupted anywhere, by an error or
    by a cancellation, is undone before the next one.

    Attributes:
        concepts: The triggers that the model knows now, and their tokens.
        pooling: Where the pooled embedding is read.
    """

    concepts: tuple[Concept, ...]
    pooling: Pooling

    def __init__(self, models: SDXLModels) -> None:
        """Manage `models`, which must be the bare base."""
        self._models = models
        self._vocabulary = BaseVocabulary(models)
        networks = (models.unet, models.text_encoder, models.text_encoder_2)
        self._slots = [LoraSlots(network) for network in networks]
        self._unet_shapes = unet_shapes(models.unet)
        self._base_unet: dict[str, Tensor] = {}
        self.remove_all()

    def apply(self, fine_tunes: Sequence[FineTune]) -> None:
        """Let exactly these act; the first one's tokens and pooling come first.

        Raises:
            ValueError: One does not fit the base model, or two cannot act together.
        """
        if self._acting is not None and _act_alike(self._acting, fine_tunes):
            return
        for each in fine_tunes:
            self._check_fits(each)
        if self._acting is None:
            self.remove_all()
        self._acting = None
        self._apply_unet(fine_tunes)
        self._apply_lora(fine_tunes)
        self._apply_embeddings(fine_tunes)
        self._acting = list(fine_tunes)

    def remove_all(self) -> None:
        """Make the model the bare base again, layers and all; may itself be interrupted."""
        self._acting: list[FineTune] | None = None  # not known, until a change is whole
        for slots in self._slots:
            slots.clear()
        self._restore_unet()
        self._vocabulary.restore()
        self._with_embeddings: list[TrainedWeights] = []
        self.concepts, self.pooling = (), "end_of_text"
        self._acting = []

    def _check_fits(self, fine_tune: FineTune) -> None:
        weights = fine_tune.weights
        try:
            for network, state in lora_by_network(self._models, weights):
                check_lora_fits(network, state)
            if weights.embeddings is not None:
                weights.embeddings.check_fits(self._models)
            check_unet_fits(self._unet_shapes, weights.unet)
        except ValueError as error:
            raise ValueError(f"{fine_tune.name}: {error}") from error

    def _apply_unet(self, fine_tunes: Sequence[FineTune]) -> None:
        whole = [each for each in fine_tunes if each.weights.unet]
        if len(whole) > 1:
            raise ValueError(
                f"{whole[0].name} and {whole[1].name} are both a whole U-Net: a model has one"
            )
        wanted = whole[0].weights if whole else None
        if wanted is self._unet_weights:
            return
        self._slots[0].clear()  # their layers have other names under LoRA
        self._restore_unet()
        if wanted:
            self._replace_unet(wanted)
            self._unet_weights = wanted

    def _replace_unet(self, weights: TrainedWeights) -> None:
        unet = self._models.unet
        own = unet.state_dict()
        self._base_unet = {name: own[name].to("cpu", copy=True) for name in weights.unet}
        unet.load_state_dict(weights.unet, strict=False)

    def _restore_unet(self) -> None:
        self._models.unet.load_state_dict(self._base_unet, strict=False)
        self._base_unet = {}
        self._unet_weights: TrainedWeights | None = None

    def _apply_lora(self, fine_tunes: Sequence[FineTune]) -> None:
        by_fine_tune = [lora_by_network(self._models, each.weights) for each in fine_tunes]
        for i, slots in enumerate(self._slots):
            slots.hold(
                [
                    (networks[i][1], each.scale)
                    for networks, each in zip(by_fine_tune, fine_tunes, strict=True)
                    if networks[i][1]
                ]
            )

    def _apply_embeddings(self, fine_tunes: Sequence[FineTune]) -> None:
        speaking = [each for each in fine_tunes if each.weights.embeddings is not None]
        wanted = [each.weights for each in speaking]
        known = self._with_embeddings
        if len(wanted) == len(known) and all(map(lambda a, b: a is b, wanted, known)):
            return
        self._vocabulary.restore()
        self._with_embeddings, self.concepts, self.pooling = [], (), "end_of_text"
        if not speaking:
            return
        self.concepts, rows = merge_concepts(_with_own_triggers(speaking))
        assert rows
        rows.install(self._models)
        self.pooling = speaking[0].weights.pooling
        self._with_embeddings = wanted


def _act_alike(some: Sequence[FineTune], others: Sequence[FineTune]) -> bool:
    return len(some) == len(others) and all(
        one.weights is other.weights and one.scale == other.scale
        for one, other in zip(some, others, strict=True)
    )


def _with_own_triggers(fine_tunes: Sequence[FineTune]) -> list[MergeInput]:
    """Give a word that a fine-tune before has already a number, `TOK2`, and say so."""
    taken: set[str] = set()
    inputs = []
    for each in fine_tunes:
        renamed = {}
        for concept in each.weights.concepts:
            word, number = concept.trigger, 1
            while word in taken:
                number += 1
                word = f"{concept.trigger}{number}"
            taken.add(word)
            if word != concept.trigger:
                renamed[concept.trigger] = word
                logger.info(
                    "Two fine-tunes have the word %s: that of %s is %s here.",
                    concept.trigger,
                    each.name,
                    word,
                )
        inputs.append(MergeInput(name=each.name, weights=each.weights, triggers=renamed))
    return inputs
