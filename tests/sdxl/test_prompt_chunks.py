import pytest
from transformers import CLIPTokenizer

from sdxl.models import SDXLModels
from sdxl.placeholder_embeddings import PlaceholderEmbeddings
from sdxl.prompt_chunks import Chunk, split_into_chunks


@pytest.fixture
def tokenizer(tiny_models: SDXLModels) -> CLIPTokenizer:
    tokens = tuple(f"<s{i}>" for i in range(4))
    rows = PlaceholderEmbeddings(tokens, *(e.new_zeros(4, e.shape[1]) for e in tables(tiny_models)))
    rows.install(tiny_models)
    return tiny_models.tokenizer


def tables(models: SDXLModels):
    encoders = (models.text_encoder, models.text_encoder_2)
    return [encoder.get_input_embeddings().weight for encoder in encoders]


def words(chunk: Chunk, tokenizer: CLIPTokenizer) -> list[str]:
    end = chunk.input_ids.index(tokenizer.eos_token_id)
    return [t.removesuffix("</w>") for t in tokenizer.convert_ids_to_tokens(chunk.input_ids[1:end])]


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_a_short_prompt_has_the_ids_that_its_tokenizer_gives(part: str, tiny_models: SDXLModels):
    tokenizer = getattr(tiny_models, part)
    for prompt in ["", "a photo (close-up), Canon 5D--, C++ caf\u00e9", "ball " * 75]:
        [chunk] = split_into_chunks(prompt, tokenizer)
        assert list(chunk.input_ids) == tokenizer(prompt, padding="max_length").input_ids
        assert not chunk.is_weighted
        assert len(chunk.weights) == 77


def test_a_long_prompt_fills_one_chunk_after_the_other_and_loses_nothing(tokenizer: CLIPTokenizer):
    chunks = split_into_chunks("ball " * 160 + "cube", tokenizer)
    assert [len(words(chunk, tokenizer)) for chunk in chunks] == [75, 75, 11]
    assert all(len(chunk.input_ids) == len(chunk.weights) == 77 for chunk in chunks)
    assert words(chunks[-1], tokenizer) == ["ball"] * 10 + ["cube"]


def test_a_word_that_does_not_fit_moves_to_the_next_chunk(tokenizer: CLIPTokenizer):
    assert len(tokenizer.tokenize("foot")) > 1
    first, second = split_into_chunks("ball " * 74 + "foot, cube", tokenizer)
    assert words(first, tokenizer) == ["ball"] * 74
    assert "".join(words(second, tokenizer)) == "foot,cube"


def test_the_tokens_of_one_trigger_stay_together(tokenizer: CLIPTokenizer):
    first, second = split_into_chunks("ball " * 72 + "<s0><s1><s2><s3> cube", tokenizer)
    assert words(first, tokenizer) == ["ball"] * 72
    assert words(second, tokenizer) == ["<s0>", "<s1>", "<s2>", "<s3>", "cube"]
    # the word behind them may be parted from them
    first, second = split_into_chunks("ball " * 71 + "<s0><s1><s2><s3> cube", tokenizer)
    assert words(second, tokenizer) == ["cube"]


def test_a_word_longer_than_a_chunk_is_parted(tokenizer: CLIPTokenizer):
    text = "!?" * 50
    chunks = split_into_chunks(text, tokenizer)
    assert len(chunks) > 1
    assert "".join(word for chunk in chunks for word in words(chunk, tokenizer)) == text


def test_weights_go_with_their_words_into_the_next_chunk(tokenizer: CLIPTokenizer):
    first, second = split_into_chunks("ball " * 74 + "(red <s0><s1>:1.5) cube", tokenizer)
    assert first.weights == (1.0,) * 75 + (1.5, 1.0)
    assert second.weights == (1.0, 1.5, 1.5) + (1.0,) * 74
    assert second.is_weighted


def test_the_border_of_a_group_ends_a_word(tokenizer: CLIPTokenizer):
    assert split_into_chunks("(red:1)(ball:1), it", tokenizer) == split_into_chunks(
        "red ball, it", tokenizer
    )


def test_as_many_chunks_as_asked_for_end_with_those_of_the_empty_prompt(tokenizer: CLIPTokenizer):
    [empty] = split_into_chunks("", tokenizer)
    [ball] = split_into_chunks("ball", tokenizer)
    assert split_into_chunks("ball", tokenizer, at_least=3) == [ball, empty, empty]
    assert len(split_into_chunks("ball " * 80, tokenizer, at_least=1)) == 2
