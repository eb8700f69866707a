"""A prompt, however long, as rows of tokens that fit a CLIP text encoder."""

from dataclasses import dataclass

from transformers import CLIPTokenizer

from sdxl.concept import PLACEHOLDER
from sdxl.prompt_weights import read_weights

WORD_END = "</w>"  # how CLIP's vocabulary marks the last token of a word


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row for a text encoder.

    Attributes:
        input_ids: T of them: start of text, up to T - 2 tokens, end of text, padding.
        weights: T of them, 1 at start, end and padding.
    """

    input_ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def is_weighted(self) -> bool:
        """Whether any weight is other than 1."""
        return any(weight != 1 for weight in self.weights)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    weight: float


def split_into_chunks(prompt: str, tokenizer: CLIPTokenizer, at_least: int = 1) -> list[Chunk]:
    """Return the chunks of a prompt; nothing is cut.

    Words, and the placeholder tokens that stand for one trigger, stay together as long as they fit
    in one chunk. The ids of a short prompt without weights are the tokenizer's own.

    Args:
        prompt: With the placeholders already expanded.
        tokenizer: Of the text encoder; its `model_max_length` is T.
        at_least: So many chunks, with those of the empty prompt behind.

    Raises:
        ValueError: A weight is out of range; see `read_weights`.
    """
    room = tokenizer.model_max_length - 2  # start and end of text
    chunks: list[list[_Token]] = [[]]
    for word in _words(prompt, tokenizer):
        for start in range(0, len(word), room):
            part = word[start : start + room]
            if len(chunks[-1]) + len(part) > room:
                chunks.append([])
            chunks[-1] += part
    chunks += [[]] * (at_least - len(chunks))
    return [_build_chunk(tokens, tokenizer) for tokens in chunks]


def _words(prompt: str, tokenizer: CLIPTokenizer) -> list[list[_Token]]:
    """Return the tokens of the prompt, those together that should not be parted."""
    words: list[list[_Token]] = []
    previous = WORD_END
    for piece in read_weights(prompt):
        for text in tokenizer.tokenize(piece.text, verbose=False):
            is_placeholder = PLACEHOLDER.fullmatch(text)
            after_placeholder = PLACEHOLDER.fullmatch(previous)
            if previous.endswith(WORD_END) or (after_placeholder and not is_placeholder):
                words.append([])
            words[-1].append(_Token(text, piece.weight))
            previous = text
    return words


def _build_chunk(tokens: list[_Token], tokenizer: CLIPTokenizer) -> Chunk:
    padding = tokenizer.model_max_length - 2 - len(tokens)
    ids = [tokenizer.convert_tokens_to_ids(token.text) for token in tokens]
    return Chunk(
        input_ids=(
            tokenizer.bos_token_id,
            *ids,
            tokenizer.eos_token_id,
            *[tokenizer.pad_token_id] * padding,
        ),
        weights=(1.0, *[token.weight for token in tokens], *[1.0] * (padding + 1)),
    )
