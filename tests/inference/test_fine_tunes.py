from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inference.fine_tunes import FineTune, FineTunes
from sdxl.concept import expand
from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.prompt import encode_prompts
from sdxl.weights.trained import TrainedWeights
from tests.inference.cancellation import CancelAt
from tests.inference.serving import RECORD, make_weights
from tests.sdxl.weights.conftest import train
from tests.tiny_sdxl import load_tiny_sdxl, predict_noise

PROMPT = "a photo of TOK and HAT"
Seen = tuple[torch.Tensor, ...]


def seen(models: SDXLModels, fine_tunes: FineTunes) -> Seen:
    """What text encoders and U-Net make of a prompt with triggers."""
    prompt = expand(PROMPT, fine_tunes.concepts)
    embeds = encode_prompts([prompt], models, fine_tunes.pooling)
    return embeds.prompt_embeds, embeds.pooled_prompt_embeds, predict_noise(models)


def same(one: Seen, other: Seen) -> bool:
    return all(map(torch.equal, one, other))


def whole_unet(models: SDXLModels) -> TrainedWeights:
    unet = {k: v + 0.1 for k, v in models.unet.state_dict().items() if "attn" in k}
    return replace(make_weights(models, seed=9), lora={}, unet=unet)


@pytest.fixture(scope="module")
def known(tiny_sdxl_dir: Path) -> dict[str, FineTune]:
    """Fine-tunes of every kind, by their names."""
    tiny_models = load_tiny_sdxl(tiny_sdxl_dir)
    weights = {
        "lora": make_weights(tiny_models),
        "fits": make_weights(tiny_models, seed=1),
        "wider": make_weights(tiny_models, seed=2, target="all", trigger="HAT"),
        "text": train(tiny_models),
        "dora": train(tiny_models, use_dora=True),
        "old": make_weights(tiny_models, seed=3, record={}),
        "unet": whole_unet(tiny_models),
        "bare": replace(make_weights(tiny_models, seed=4), concepts=(), embeddings=None),
    }
    return {name: FineTune(name=name, weights=w, scale=0.7) for name, w in weights.items()}


COMBINATIONS = (
    *((name,) for name in ("lora", "fits", "wider", "text", "dora", "old", "unet", "bare")),
    ("lora", "fits"), ("unet", "wider"), ("text", "bare", "old"), ("wider", "lora"), (),
)  # fmt: skip


def test_whatever_acted_before_a_combination_acts_as_in_a_fresh_model(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, known: dict[str, FineTune]
):
    fresh = {}
    for names in COMBINATIONS:
        models = load_tiny_sdxl(tiny_sdxl_dir)
        alone = FineTunes(models)
        alone.apply([known[name] for name in names])
        fresh[names] = seen(models, alone)
    fine_tunes = FineTunes(tiny_models)
    for names in (*COMBINATIONS, *reversed(COMBINATIONS), (), ("wider",), ("lora", "fits")):
        fine_tunes.apply([known[name] for name in names])
        assert same(seen(tiny_models, fine_tunes), fresh[names]), names
    for i, names in enumerate(COMBINATIONS):
        others = COMBINATIONS[i + 1 :]
        assert not any(same(fresh[names], fresh[other]) for other in others), names


def test_the_scale_acts_and_zero_leaves_the_u_net_alone(
    tiny_models: SDXLModels, known: dict[str, FineTune]
):
    base = predict_noise(tiny_models)
    fine_tunes = FineTunes(tiny_models)
    predictions = []
    for scale in (0.0, 0.7, 1.0, -1.0):
        fine_tunes.apply([replace(known["lora"], scale=scale)])
        predictions.append(predict_noise(tiny_models))
    assert torch.equal(predictions[0], base)
    assert not any(torch.equal(predictions[i], predictions[i + 1]) for i in range(3))


def test_a_word_that_two_fine_tunes_have_gets_a_number(
    tiny_models: SDXLModels, known: dict[str, FineTune], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    fine_tunes = FineTunes(tiny_models)
    fine_tunes.apply([known["lora"], known["fits"], known["old"]])
    assert [c.trigger for c in fine_tunes.concepts] == ["TOK", "TOK2", "TOK3"]
    assert expand("TOK, TOK2", fine_tunes.concepts) == "<s0><s1>, <s2><s3>"
    assert "the word TOK: that of fits is TOK2 here" in caplog.text


def test_the_tokens_of_one_fine_tune_are_unknown_to_the_next(
    tiny_models: SDXLModels, known: dict[str, FineTune]
):
    fine_tunes = FineTunes(tiny_models)
    fine_tunes.apply([known["text"]])  # three tokens
    fine_tunes.apply([known["lora"]])  # two
    assert "<s2>" not in tiny_models.tokenizer.get_vocab()
    fine_tunes.apply([known["bare"]])
    assert "<s0>" not in tiny_models.tokenizer_2.get_vocab()
    assert fine_tunes.concepts == ()


def foreign_embeddings(weights: TrainedWeights) -> TrainedWeights:
    rows = PlaceholderEmbeddings(("<s0>", "<s1>"), torch.zeros(2, 768), torch.zeros(2, 1280))
    return replace(weights, embeddings=rows)


def foreign_lora(weights: TrainedWeights) -> TrainedWeights:
    return replace(weights, lora={k: torch.zeros(8, 8) for k in weights.lora})


def foreign_unet(weights: TrainedWeights) -> TrainedWeights:
    return replace(weights, lora={}, unet={"conv_in.weight": torch.zeros(3, 3)})


@pytest.mark.parametrize("make_foreign", [foreign_embeddings, foreign_lora, foreign_unet])
@pytest.mark.parametrize("before", [(), ("wider",), ("unet",)])
def test_one_that_does_not_fit_is_refused_and_leaves_the_base_bit_for_bit(
    tiny_models: SDXLModels,
    known: dict[str, FineTune],
    make_foreign: Callable[[TrainedWeights], TrainedWeights],
    before: tuple[str, ...],
):
    fine_tunes = FineTunes(tiny_models)
    base = seen(tiny_models, fine_tunes)
    fine_tunes.apply([known[name] for name in before])
    foreign = FineTune(name="foreign", weights=make_foreign(known["lora"].weights))
    with pytest.raises(ValueError, match=r"^foreign: .*another base model"):
        fine_tunes.apply([known["text"], foreign])
    fine_tunes.apply([])
    assert same(seen(tiny_models, fine_tunes), base)


def test_two_whole_u_nets_at_once_are_refused_by_name(
    tiny_models: SDXLModels, known: dict[str, FineTune]
):
    other = FineTune(name="other", weights=whole_unet(tiny_models))
    with pytest.raises(ValueError, match="unet and other are both a whole U-Net"):
        FineTunes(tiny_models).apply([known["unet"], other])


@pytest.mark.parametrize("after", [(), ("lora", "fits")])
def test_a_change_that_is_canceled_anywhere_is_undone_by_the_next_request(
    tiny_models: SDXLModels, tiny_sdxl_dir: Path, known: dict[str, FineTune], after: tuple[str, ...]
):
    fresh_models = load_tiny_sdxl(tiny_sdxl_dir)
    fresh = FineTunes(fresh_models)
    fresh.apply([known[name] for name in after])
    expected = seen(fresh_models, fresh)
    fine_tunes = FineTunes(tiny_models)
    was_canceled = 0
    # through removing a whole U-Net, injecting, filling, adding tokens
    for number in (1, 5, 30, 100, 300, 1000, 3000, 10_000, 20_000, 30_000):
        fine_tunes.apply([known["unet"]])
        with CancelAt(number) as cancel:
            fine_tunes.apply([known["wider"], known["text"]])
        was_canceled += cancel.has_canceled
        fine_tunes.apply([known[name] for name in after])
        assert same(seen(tiny_models, fine_tunes), expected), number
    assert was_canceled >= 7


def test_old_archives_keep_their_pooling(tiny_models: SDXLModels):
    both = [make_weights(tiny_models, record=record) for record in ({}, RECORD)]
    fine_tunes = FineTunes(tiny_models)
    poolings = []
    for weights in both:
        fine_tunes.apply([FineTune(name="it", weights=weights)])
        poolings.append(fine_tunes.pooling)
    assert poolings == ["highest_token_id", "end_of_text"]
