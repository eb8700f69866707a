import logging

import pytest
import torch
from torch import Tensor

from sdxl.concept import Concept
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.weights.merge import MergeInput, merge_lora, merge_weights
from sdxl.weights.trained import TrainedWeights

LINEAR, CONVOLUTION = "mid_block.attentions.0.proj_in", "mid_block.resnets.0.conv1"
RECORD: dict[str, object] = {"format_version": 1, "base_model": "pocket", "settings": {"seed": 3}}


def lora(rank: int, seed: int, *paths: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for path in paths:
        kernel, ones = ((3, 3), (1, 1)) if "conv" in path else ((), ())
        down = torch.randn(rank, 6, *kernel, generator=generator)
        state[f"{path}.lora_A.weight"] = down
        state[f"{path}.lora_B.weight"] = torch.randn(8, rank, *ones, generator=generator)
    return state


def update(state: dict[str, Tensor], path: str) -> Tensor:
    up, down = state[f"{path}.lora_B.weight"], state[f"{path}.lora_A.weight"]
    return up.flatten(1) @ down.flatten(1)


def merge_input(
    name: str, seed: int, triggers: dict[str, int], record: dict[str, object] = RECORD
) -> MergeInput:
    """Weights whose triggers have that many vectors; row i of the file is filled with seed + i."""
    concepts: list[Concept] = []
    first = 0
    for trigger, num_vectors in triggers.items():
        concepts.append(Concept.with_vectors(trigger, num_vectors, first))
        first += num_vectors
    rows = torch.arange(first)[:, None] + float(seed)
    tokens = tuple(f"<s{i}>" for i in range(first))
    return MergeInput(
        name=name,
        weights=TrainedWeights(
            concepts=tuple(concepts),
            embeddings=PlaceholderEmbeddings(tokens, rows.expand(-1, 4), rows.expand(-1, 5))
            if concepts
            else None,
            lora=lora(2, seed, LINEAR),
            record=record,
        ),
    )


def test_the_merged_update_is_the_weighted_sum_for_linear_and_convolution_layers():
    first, second = lora(2, 0, LINEAR, CONVOLUTION), lora(3, 1, LINEAR, CONVOLUTION)
    merged = merge_lora([(first, 0.7), (second, -0.5)])
    for path in (LINEAR, CONVOLUTION):
        wanted = 0.7 * update(first, path) - 0.5 * update(second, path)
        torch.testing.assert_close(update(merged, path), wanted)
    assert merged[f"{CONVOLUTION}.lora_A.weight"].shape == (5, 6, 3, 3)
    assert merged[f"{CONVOLUTION}.lora_B.weight"].shape == (8, 5, 1, 1)


def test_a_layer_that_only_one_file_has_is_kept_at_its_weight():
    first, second = lora(2, 0, LINEAR), lora(3, 1, CONVOLUTION)
    merged = merge_lora([(first, 0.5), (second, 2.0)])
    torch.testing.assert_close(update(merged, LINEAR), 0.5 * update(first, LINEAR))
    torch.testing.assert_close(update(merged, CONVOLUTION), 2 * update(second, CONVOLUTION))


def test_layers_of_different_shapes_are_refused_by_name():
    other = lora(2, 1, LINEAR)
    other[f"{LINEAR}.lora_A.weight"] = torch.zeros(2, 7)
    with pytest.raises(ValueError, match=rf"{LINEAR} has different shapes.*\(8, 6\), \(8, 7\)"):
        merge_lora([(lora(2, 0, LINEAR), 1), (other, 1)])


def test_dora_is_refused_with_what_to_do_instead():
    dora = lora(2, 0, LINEAR) | {f"{LINEAR}.lora_magnitude_vector": torch.ones(8)}
    with pytest.raises(ValueError, match=r"has DoRA.*bake one of the files"):
        merge_lora([(dora, 1), (lora(2, 1, LINEAR), 1)])


def test_other_methods_and_half_pairs_are_refused():
    with pytest.raises(ValueError, match=r"x\.hada_w1_a.*LoHa and LoKr"):
        merge_lora([({"x.hada_w1_a": torch.zeros(2)}, 1)])
    half = {f"{LINEAR}.lora_A.weight": torch.zeros(2, 6)}
    with pytest.raises(ValueError, match=rf"only lora_A\.weight of the layer {LINEAR}"):
        merge_lora([(half, 1)])


def test_every_trigger_lives_on_with_its_own_rows():
    merged = merge_weights(
        [merge_input("a.tar", 10, {"TOK": 2}), merge_input("b.tar", 20, {"HAT": 1, "CAP": 2})]
    )
    assert [(c.trigger, c.placeholder_text) for c in merged.concepts] == [
        ("TOK", "<s0><s1>"),
        ("HAT", "<s2>"),
        ("CAP", "<s3><s4>"),
    ]
    assert merged.embeddings is not None
    assert merged.embeddings.tokens == ("<s0>", "<s1>", "<s2>", "<s3>", "<s4>")
    assert merged.embeddings.clip_l[:, 0].tolist() == [10, 11, 20, 21, 22]
    assert merged.embeddings.clip_g[:, 4].tolist() == [10, 11, 20, 21, 22]


def test_the_same_trigger_twice_is_refused_until_one_is_renamed():
    first, second = merge_input("a.tar", 0, {"TOK": 1}), merge_input("b.tar", 5, {"TOK": 2})
    with pytest.raises(ValueError, match=r"a\.tar and b\.tar both.*b\.tar:1:TOK=TOK2"):
        merge_weights([first, second])
    renamed = MergeInput(name="b.tar", weights=second.weights, triggers={"TOK": "HAT"})
    merged = merge_weights([first, renamed])
    assert [c.placeholder_text for c in merged.concepts if c.trigger == "HAT"] == ["<s1><s2>"]
    unknown = MergeInput(name="b.tar", weights=second.weights, triggers={"CAP": "HAT"})
    with pytest.raises(ValueError, match=r"b\.tar has no trigger CAP.*it has: TOK"):
        merge_weights([first, unknown])


def test_a_bare_lora_adds_no_trigger_and_text_encoders_are_merged_too():
    bare = MergeInput(
        name="bare.safetensors",
        weights=TrainedWeights(
            concepts=(), embeddings=None, text_encoder_lora=lora(1, 3, "text_model.q_proj")
        ),
        weight=0.5,
    )
    merged = merge_weights([bare, merge_input("a.tar", 10, {"TOK": 2})])
    assert [concept.trigger for concept in merged.concepts] == ["TOK"]
    torch.testing.assert_close(
        update(merged.text_encoder_lora, "text_model.q_proj"),
        0.5 * update(bare.weights.text_encoder_lora, "text_model.q_proj"),
    )
    both_bare = merge_weights([bare, bare])
    assert both_bare.concepts == ()
    assert both_bare.embeddings is None


def test_the_record_says_what_was_merged_and_keeps_the_base():
    merged = merge_weights(
        [merge_input("a.tar", 0, {"TOK": 1}), merge_input("b.tar", 5, {"HAT": 1})]
    )
    assert merged.base_model == "pocket"
    assert merged.pooling == "end_of_text"
    entries = merged.record["merged"]
    assert isinstance(entries, list)
    assert [(entry["file"], entry["weight"]) for entry in entries] == [("a.tar", 1), ("b.tar", 1)]
    assert entries[0]["settings"] == {"seed": 3}


def test_the_first_file_with_a_trigger_decides_the_pooling_and_a_difference_is_told(
    caplog: pytest.LogCaptureFixture,
):
    old = merge_input("old.tar", 0, {"OLD": 1}, record={})
    new = merge_input("new.tar", 5, {"NEW": 1})
    with caplog.at_level(logging.WARNING):
        assert merge_weights([old, new]).pooling == "highest_token_id"
    assert "different poolings" in caplog.text
    assert "that of old.tar" in caplog.text
    assert merge_weights([new, old]).pooling == "end_of_text"


def test_embeddings_of_different_widths_are_refused():
    other = merge_input("b.tar", 5, {"HAT": 1}).weights
    wide = TrainedWeights(
        concepts=other.concepts,
        embeddings=PlaceholderEmbeddings(("<s0>",), torch.zeros(1, 9), torch.zeros(1, 5)),
    )
    with pytest.raises(ValueError, match=r"different widths, \[\(4, 5\), \(9, 5\)\]"):
        merge_weights([merge_input("a.tar", 0, {"TOK": 1}), MergeInput(name="b.tar", weights=wide)])


def test_one_file_alone_or_a_whole_u_net_cannot_be_merged():
    one = merge_input("a.tar", 0, {"TOK": 1})
    with pytest.raises(ValueError, match="at least 2 files, got 1"):
        merge_weights([one])
    whole = TrainedWeights(concepts=(), embeddings=None, unet={"x": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"full\.tar is a whole U-Net"):
        merge_weights([one, MergeInput(name="full.tar", weights=whole)])
