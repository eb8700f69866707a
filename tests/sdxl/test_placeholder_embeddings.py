from pathlib import Path

import pytest
import torch

from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.prompt import TokenIds, encode_prompts, encode_tokens, tokenize
from tests.tiny_sdxl import END_OF_TEXT, VOCABULARY, load_tiny_sdxl

TOKENS = ("<s0>", "<s1>")
NEW_IDS = [VOCABULARY, VOCABULARY + 1]
PROMPT = "a photo of <s0><s1> on the beach"


def random_embeddings(models: SDXLModels, seed: int = 0) -> PlaceholderEmbeddings:
    return PlaceholderEmbeddings.random(TOKENS, models, torch.Generator().manual_seed(seed))


def test_new_rows_have_the_spread_of_the_table(tiny_models: SDXLModels):
    many = PlaceholderEmbeddings.random(
        tuple(f"<s{i}>" for i in range(500)), tiny_models, torch.Generator().manual_seed(0)
    )
    for rows, encoder in (
        (many.clip_l, tiny_models.text_encoder),
        (many.clip_g, tiny_models.text_encoder_2),
    ):
        spread = encoder.get_input_embeddings().weight.std()
        torch.testing.assert_close(rows.std(), spread, rtol=0.05, atol=0)


def test_only_placeholder_rows_receive_gradient(tiny_models: SDXLModels):
    installed = random_embeddings(tiny_models).install(tiny_models)
    ids = tokenize([PROMPT], tiny_models.tokenizer, tiny_models.tokenizer_2)
    prompt = encode_tokens(ids, tiny_models.text_encoder, tiny_models.text_encoder_2, END_OF_TEXT)
    (prompt.prompt_embeds.square().sum() + prompt.pooled_prompt_embeds.square().sum()).backward()
    for rows in installed.parameters():
        assert rows.grad is not None
        assert (rows.grad.abs().sum(dim=1) > 0).all()
    for encoder in (tiny_models.text_encoder, tiny_models.text_encoder_2):
        with_gradient = [n for n, p in encoder.named_parameters() if p.grad is not None]
        assert with_gradient == [n for n, _ in encoder.named_parameters() if "placeholder" in n]


def test_the_placeholder_text_becomes_one_token_for_each_row(tiny_models: SDXLModels):
    random_embeddings(tiny_models).install(tiny_models)
    ids = tokenize([PROMPT], tiny_models.tokenizer, tiny_models.tokenizer_2)
    assert [i for i in ids.input_ids[0].tolist() if i >= VOCABULARY] == NEW_IDS
    assert [i for i in ids.input_ids_2[0].tolist() if i >= VOCABULARY] == NEW_IDS


def test_removing_gives_the_base_back_bit_for_bit(tiny_models: SDXLModels):
    before = encode_prompts([PROMPT], tiny_models)
    names = [n for n, _ in tiny_models.text_encoder.named_parameters()]
    installed = random_embeddings(tiny_models).install(tiny_models)
    changed = encode_prompts([PROMPT], tiny_models)
    installed.remove()
    after = encode_prompts([PROMPT], tiny_models)
    assert not torch.equal(before.prompt_embeds, changed.prompt_embeds)
    assert torch.equal(before.prompt_embeds, after.prompt_embeds)
    assert torch.equal(before.pooled_prompt_embeds, after.pooled_prompt_embeds)
    assert names == [n for n, _ in tiny_models.text_encoder.named_parameters()]


def test_a_second_fine_tune_inherits_nothing_from_the_first(tiny_models: SDXLModels):
    first = random_embeddings(tiny_models, seed=1)
    installed = first.install(tiny_models)
    expected = encode_prompts([PROMPT], tiny_models)
    installed.remove()
    random_embeddings(tiny_models, seed=2).install(tiny_models).remove()
    first.install(tiny_models)
    assert torch.equal(encode_prompts([PROMPT], tiny_models).prompt_embeds, expected.prompt_embeds)


def test_ids_of_the_table_are_looked_up_unchanged(tiny_models: SDXLModels):
    table = tiny_models.text_encoder.get_input_embeddings()
    ids = torch.arange(VOCABULARY)[None]
    random_embeddings(tiny_models).install(tiny_models)
    assert torch.equal(tiny_models.text_encoder.get_input_embeddings()(ids), table(ids))


def test_a_half_precision_encoder_stays_one(tiny_sdxl_dir: Path):
    models = load_tiny_sdxl(tiny_sdxl_dir, torch.bfloat16)
    installed = random_embeddings(models).install(models)
    assert models.text_encoder.dtype == models.text_encoder_2.dtype == torch.bfloat16
    assert {rows.dtype for rows in installed.parameters()} == {torch.float32}
    assert encode_prompts([PROMPT], models).prompt_embeds.dtype == torch.bfloat16


def test_training_installed_rows_leaves_their_source_alone(tiny_models: SDXLModels):
    source = random_embeddings(tiny_models)
    installed = source.install(tiny_models)
    with torch.no_grad():
        installed.parameters()[0].add_(1.0)
    assert torch.equal(source.clip_l + 1.0, installed.state().clip_l)


def test_rows_of_another_base_are_refused_with_both_widths(tiny_models: SDXLModels):
    foreign = PlaceholderEmbeddings(TOKENS, torch.zeros(2, 768), torch.zeros(2, 1280))
    with pytest.raises(ValueError, match=r"768 wide.*16 wide.*another base model"):
        foreign.install(tiny_models)


def test_rows_and_tokens_must_be_as_many():
    with pytest.raises(ValueError, match="2 placeholder tokens need as many"):
        PlaceholderEmbeddings(TOKENS, torch.zeros(1, 16), torch.zeros(1, 32))


def test_token_ids_are_selected_by_row():
    ids = TokenIds(torch.tensor([[1], [2]]), torch.tensor([[3], [4]]))
    assert ids.select(torch.tensor([1])).input_ids_2.tolist() == [[4]]
