import logging

import pytest
import torch

from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.prompt import encode_prompts, pooled_position, tokenize
from tests.tiny_sdxl import END_OF_TEXT, plain_pipeline


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
    assert "too long" in caplog.text
    assert "ball cube" in caplog.text
