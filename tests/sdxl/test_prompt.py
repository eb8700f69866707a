import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.prompt import (
    Pooling,
    PromptEmbeds,
    encode_prompts,
    encode_tokens,
    pooled_position,
    tokenize,
    weighted_states,
)
from tests.tiny_sdxl import END_OF_TEXT, load_tiny_sdxl, plain_pipeline

LONG = "ball " * 100 + "cube"  # 101 tokens: two chunks


def assert_same_bits(ours: PromptEmbeds, expected: PromptEmbeds) -> None:
    assert torch.equal(ours.prompt_embeds, expected.prompt_embeds)
    assert torch.equal(ours.pooled_prompt_embeds, expected.pooled_prompt_embeds)


@pytest.fixture
def models_with_placeholders(tiny_models: SDXLModels) -> SDXLModels:
    generator = torch.Generator().manual_seed(0)
    PlaceholderEmbeddings.random(("<s0>", "<s1>"), tiny_models, generator).install(tiny_models)
    return tiny_models


def test_the_pooled_embedding_depends_on_words_after_the_placeholder(
    models_with_placeholders: SDXLModels,
):
    # SDXL's config says eos_token_id 2, with which transformers pools at the placeholder
    prompts = ["a photo of <s0><s1> on the beach", "a photo of <s0><s1> in the snow"]
    beach, snow = encode_prompts(prompts, models_with_placeholders).pooled_prompt_embeds
    assert (beach - snow).abs().max() > 1e-3
    old = encode_prompts(prompts, models_with_placeholders, pooling="highest_token_id")
    assert torch.equal(*old.pooled_prompt_embeds)


def test_the_pooled_embedding_is_read_at_the_first_end_of_text():
    ids = torch.tensor([[7, 3, 9, 8, 8, 8], [7, 3, 3, 3, 8, 0]])
    assert pooled_position(ids, 8, "end_of_text").tolist() == [3, 4]
    assert pooled_position(ids, 8, "highest_token_id").tolist() == [2, 4]


def test_a_prompt_without_placeholders_is_encoded_as_diffusers_does(tiny_models: SDXLModels):
    tiny_models.text_encoder_2.text_model.eos_token_id = (
        END_OF_TEXT  # without new tokens both agree
    )
    pipeline = plain_pipeline(tiny_models)
    expected, _, expected_pooled, _ = pipeline.encode_prompt(
        "a red ball on the beach", do_classifier_free_guidance=False
    )
    ours = encode_prompts(["a red ball on the beach"], tiny_models)
    torch.testing.assert_close(ours.prompt_embeds, expected)
    torch.testing.assert_close(ours.pooled_prompt_embeds, expected_pooled)


def test_a_caption_over_77_tokens_is_cut_and_the_log_quotes_what_is_lost(
    tiny_models: SDXLModels, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        ids = tokenize(["ball " * 80 + "cube"], tiny_models.tokenizer, tiny_models.tokenizer_2)
    assert ids.input_ids.shape == ids.input_ids_2.shape == (1, 77)
    assert ids.input_ids_2[0, -1] == tiny_models.tokenizer_2.eos_token_id
    [record] = caplog.records
    assert "too long" in record.message
    assert "ball cube" in record.message


@pytest.mark.parametrize("pooling", ["end_of_text", "highest_token_id"])
def test_a_short_prompt_without_weights_is_encoded_as_a_caption_is_to_the_bit(
    pooling: Pooling, models_with_placeholders: SDXLModels
):
    models = models_with_placeholders
    plain = ["", "a photo (close-up), Canon 5D--, C++", "a <s0><s1> (ball), 16:9", "ball " * 75]
    for prompt in plain:
        expected = encode_tokens(
            tokenize([prompt], models.tokenizer, models.tokenizer_2),
            models.text_encoder,
            models.text_encoder_2,
            END_OF_TEXT,
            pooling,
        )
        assert_same_bits(encode_prompts([prompt], models, pooling), expected)


def test_what_a_prompt_gives_does_not_depend_on_the_others_to_the_bit(tiny_models: SDXLModels):
    prompts = ["a red ball", "a (blue:1.4) cup on the beach", ""]
    together = encode_prompts(prompts, tiny_models)
    for i, prompt in enumerate(prompts):
        assert_same_bits(together.select(torch.tensor([i])), encode_prompts([prompt], tiny_models))


def test_the_encoders_run_once_for_each_prompt_that_differs(tiny_models: SDXLModels):
    runs = []
    for encoder in (tiny_models.text_encoder, tiny_models.text_encoder_2.text_model):
        encoder.register_forward_hook(lambda *_: runs.append(1))
    encode_prompts(["a red ball", "", "a red ball", "a red ball", ""], tiny_models)
    assert len(runs) == 2 * 2
    encode_prompts(["a (red:1.2) ball", "(a red:0.9) ball", "a red ball", ""], tiny_models)
    assert len(runs) == 2 * 2 + 2 * 2  # the same words, and the empty prompt


def test_weight_1_changes_no_bit(models_with_placeholders: SDXLModels):
    plain, weighted = "a <s0><s1> ball, on the beach", "a (<s0><s1>:1) ((ball, on:0.5):2) the beach"
    assert_same_bits(
        encode_prompts([weighted], models_with_placeholders),
        encode_prompts([plain], models_with_placeholders),
    )


def test_a_weight_scales_the_distance_of_its_words_from_the_empty_prompt(
    models_with_placeholders: SDXLModels,
):
    prompts = ["a (<s0><s1>:1.5) ball", "a <s0><s1> ball", ""]
    embeds = encode_prompts(prompts, models_with_placeholders)
    weighted, plain, empty = embeds.prompt_embeds
    words = torch.zeros(77, dtype=torch.bool)
    words[2:4] = True  # behind the start of text and "a"
    torch.testing.assert_close(weighted[words], (empty + 1.5 * (plain - empty))[words])
    assert torch.equal(weighted[~words], plain[~words])
    assert torch.equal(embeds.pooled_prompt_embeds[0], embeds.pooled_prompt_embeds[1])


def test_a_weight_in_the_second_chunk_acts_there(tiny_models: SDXLModels):
    embeds = encode_prompts(["ball " * 100 + "(cube:0)", LONG, ""], tiny_models)
    weighted, plain, empty = embeds.prompt_embeds
    position = 77 + 26  # 75 words in the first chunk, 25 before it in the second
    assert torch.equal(weighted[position], empty[position])
    others = torch.arange(154) != position
    assert torch.equal(weighted[others], plain[others])


def test_weight_0_gives_the_empty_state_and_weight_1_the_plain_one_in_half_precision():
    states, empty = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0)).half()
    weights = torch.tensor([0.0, 1.0, 2.0])[:, None].expand(3, 4)
    weighted = weighted_states(states, empty, weights)
    assert weighted.dtype == torch.float16
    assert torch.equal(weighted[:, 0], empty[:, 0])
    assert torch.equal(weighted[:, 1], states[:, 1])
    torch.testing.assert_close(weighted[:, 2], 2 * states[:, 2] - empty[:, 2])


def test_weighted_prompts_keep_the_dtype_of_the_encoders(tiny_sdxl_dir: Path):
    models = load_tiny_sdxl(tiny_sdxl_dir, torch.bfloat16)
    embeds = encode_prompts(["a (red:1.3) ball", LONG], models)
    assert embeds.prompt_embeds.dtype == embeds.pooled_prompt_embeds.dtype == torch.bfloat16


def test_a_long_prompt_is_encoded_whole_and_the_others_are_filled_up(tiny_models: SDXLModels):
    prompts = [LONG, "ball " * 100 + "cup", "a red ball", ""]
    cube, cup, short, empty = encode_prompts(prompts, tiny_models).prompt_embeds
    assert cube.shape[0] == 2 * 77
    assert torch.equal(cube[:77], cup[:77])
    assert (cube[77:] - cup[77:]).abs().max() > 1e-3  # the last word counts
    assert torch.equal(short[:77], encode_prompts(["a red ball"], tiny_models).prompt_embeds[0])
    assert torch.equal(short[77:], empty[:77])
    assert torch.equal(empty[77:], empty[:77])


def test_the_pooled_embedding_of_a_long_prompt_is_its_first_chunks(tiny_models: SDXLModels):
    long, first = encode_prompts([LONG, "ball " * 75], tiny_models).pooled_prompt_embeds
    assert torch.equal(long, first)


def test_a_long_prompt_is_not_logged_as_cut(
    tiny_models: SDXLModels, caplog: pytest.LogCaptureFixture
):
    encode_prompts([LONG], tiny_models)
    assert not caplog.records


def test_a_weight_out_of_range_is_an_error(tiny_models: SDXLModels):
    with pytest.raises(ValueError, match="prompt must have weights from 0 to 2, got 3 for 'red'"):
        encode_prompts(["a (red:3) ball"], tiny_models)


def test_diffusers_pipeline_paints_every_chunk_of_a_long_prompt(tiny_models: SDXLModels):
    embeds = encode_prompts([LONG, "ball " * 100 + "cup", "(red:1.2)"], tiny_models)
    pipeline = plain_pipeline(tiny_models)
    pipeline.set_progress_bar_config(disable=True)

    def paint(row: int) -> Tensor:
        prompt, negative = embeds.select(torch.tensor([row])), embeds.select(torch.tensor([2]))
        return pipeline(
            prompt_embeds=prompt.prompt_embeds,
            pooled_prompt_embeds=prompt.pooled_prompt_embeds,
            negative_prompt_embeds=negative.prompt_embeds,
            negative_pooled_prompt_embeds=negative.pooled_prompt_embeds,
            num_inference_steps=2,
            guidance_scale=7.5,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images

    assert not torch.equal(paint(0), paint(1))  # they differ in the second chunk only
