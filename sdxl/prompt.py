"""From text to the conditioning of the U-Net; one way for training and prediction.

B = prompts, T = 77 token positions (a multiple of it where prompts are long), D = 2048 (SDXL: 768
of CLIP-L and 1280 of CLIP-bigG), P = 1280 (the projection of the second text encoder).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sdxl.models import SDXLModels
from sdxl.prompt_chunks import Chunk, split_into_chunks

logger = logging.getLogger(__name__)

Pooling = Literal["end_of_text", "highest_token_id"]
"""Where the pooled embedding is read. `highest_token_id` is what transformers does for SDXL's
published config, and so what cog-sdxl trained with: with added tokens it reads at the placeholder,
and the words after it do not count (diffusers #10754)."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Token ids for both text encoders, (B, T) int64 each."""

    input_ids: Tensor
    input_ids_2: Tensor

    def select(self, index: Tensor) -> "TokenIds":
        """Return the rows that `index` (int64, one dimension) names."""
        return TokenIds(self.input_ids[index], self.input_ids_2[index])

    def to(self, device: torch.device) -> "TokenIds":
        """Return the same ids on `device`."""
        return TokenIds(self.input_ids.to(device), self.input_ids_2.to(device))


@dataclass(frozen=True, slots=True)
class PromptEmbeds:
    """What the U-Net is told of a prompt.

    Attributes:
        prompt_embeds: (B, T, D), the penultimate hidden states of both encoders side by side.
        pooled_prompt_embeds: (B, P), the second encoder's projected end-of-text state.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor

    def select(self, index: Tensor) -> "PromptEmbeds":
        """Return the rows that `index` (int64, one dimension) names."""
        return PromptEmbeds(self.prompt_embeds[index], self.pooled_prompt_embeds[index])


def tokenize(
    prompts: Sequence[str], tokenizer: CLIPTokenizer, tokenizer_2: CLIPTokenizer
) -> TokenIds:
    """Turn prompts (placeholders already expanded) into ids, padded and cut to 77 tokens.

    What is cut is logged as a warning: the model never sees it.
    """
    _warn_of_cut_words(prompts, tokenizer)
    ids = [
        part(
            list(prompts),
            padding="max_length",
            max_length=part.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        for part in (tokenizer, tokenizer_2)
    ]
    return TokenIds(*ids)


def _warn_of_cut_words(prompts: Sequence[str], tokenizer: CLIPTokenizer) -> None:
    room = tokenizer.model_max_length - 2  # start and end of text
    for prompt in dict.fromkeys(prompts):
        tokens = tokenizer.tokenize(prompt, verbose=False)  # this one warns better
        if len(tokens) > room:
            cut = tokenizer.convert_tokens_to_string(tokens[room:]).strip()
            logger.warning("The text %r is too long by %r; that part is ignored.", prompt, cut)


def encode_tokens(
    ids: TokenIds,
    text_encoder: CLIPTextModel,
    text_encoder_2: CLIPTextModelWithProjection,
    end_of_text_id: int,
    pooling: Pooling = "end_of_text",
) -> PromptEmbeds:
    """Run both text encoders, with gradients where their parameters ask for them.

    Args:
        ids: Of both tokenizers.
        text_encoder: CLIP-L; only its penultimate hidden state is used.
        text_encoder_2: CLIP-bigG; penultimate hidden state and projected pooled state.
        end_of_text_id: Of the second tokenizer. Never read from the encoder's config, where SDXL
            says 2 and means 49407.
        pooling: Where the pooled state is read.
    """
    states = text_encoder(ids.input_ids, output_hidden_states=True).hidden_states[-2]
    output_2 = text_encoder_2.text_model(ids.input_ids_2, output_hidden_states=True)
    row = torch.arange(len(ids.input_ids_2), device=ids.input_ids_2.device)
    position = pooled_position(ids.input_ids_2, end_of_text_id, pooling)
    pooled = text_encoder_2.text_projection(output_2.last_hidden_state[row, position])
    return PromptEmbeds(torch.cat([states, output_2.hidden_states[-2]], dim=-1), pooled)


def pooled_position(input_ids: Tensor, end_of_text_id: int, pooling: Pooling) -> Tensor:
    """Return the position, (B,) int64, at which each row's pooled state is read."""
    if pooling == "highest_token_id":
        return input_ids.argmax(dim=-1)
    # the first one: tokenizers that pad with the end-of-text token repeat it
    return (input_ids == end_of_text_id).int().argmax(dim=-1)


def encode_prompts(
    prompts: Sequence[str], models: SDXLModels, pooling: Pooling = "end_of_text"
) -> PromptEmbeds:
    """Encode prompts (placeholders already expanded) without gradients, on the encoders' device.

    Unlike captions, prompts may have weights (`sdxl.prompt_weights`) and any length: they are
    encoded in chunks of 77 positions side by side, T = 77 k with the k of the longest of them, and
    the others are filled up with the empty prompt. So prompts that guide one picture together are
    given together. The pooled embedding is the first chunk's, and has no weights.

    Every chunk goes through the encoders once and alone: what a prompt gives does not depend on
    which others come with it, to the bit.

    Raises:
        ValueError: A weight is out of range.
    """

    @cache
    def encode(input_ids: tuple[int, ...], input_ids_2: tuple[int, ...]) -> PromptEmbeds:
        ids = TokenIds(torch.tensor([input_ids]), torch.tensor([input_ids_2]))
        return encode_tokens(
            ids.to(models.text_encoder.device),
            models.text_encoder,
            models.text_encoder_2,
            models.tokenizer_2.eos_token_id,
            pooling,
        )

    def encode_weighted(chunk: Chunk, chunk_2: Chunk) -> Tensor:
        states = encode(chunk.input_ids, chunk_2.input_ids).prompt_embeds
        if not (chunk.is_weighted or chunk_2.is_weighted):
            return states
        [(empty, empty_2)] = _chunk_pairs([""], models)[""]
        empty_states = encode(empty.input_ids, empty_2.input_ids).prompt_embeds
        return weighted_states(states, empty_states, _weights(chunk, chunk_2, models))

    pairs = _chunk_pairs(prompts, models)
    with torch.no_grad():
        embeds = {p: torch.cat([encode_weighted(*pair) for pair in pairs[p]], dim=1) for p in pairs}
        pooled = {
            p: encode(chunk.input_ids, chunk_2.input_ids).pooled_prompt_embeds
            for p, [(chunk, chunk_2), *_] in pairs.items()
        }
    return PromptEmbeds(
        torch.cat([embeds[prompt] for prompt in prompts]),
        torch.cat([pooled[prompt] for prompt in prompts]),
    )


def _chunk_pairs(
    prompts: Sequence[str], models: SDXLModels
) -> dict[str, list[tuple[Chunk, Chunk]]]:
    """Return each prompt's chunks for both text encoders, equally many for every prompt."""
    tokenizers = (models.tokenizer, models.tokenizer_2)
    longest = max(len(split_into_chunks(p, t)) for p in prompts for t in tokenizers)
    return {
        p: list(zip(*(split_into_chunks(p, t, longest) for t in tokenizers), strict=True))
        for p in prompts
    }


def _weights(chunk: Chunk, chunk_2: Chunk, models: SDXLModels) -> Tensor:
    """Return the weight of every number of both encoders' states, (T, D) float32."""
    columns = [
        torch.tensor(part.weights)[:, None].expand(-1, encoder.config.hidden_size)
        for part, encoder in ((chunk, models.text_encoder), (chunk_2, models.text_encoder_2))
    ]
    return torch.cat(columns, dim=1).to(models.text_encoder.device)


def weighted_states(states: Tensor, empty_states: Tensor, weights: Tensor) -> Tensor:
    """Return e + w (z - e): weight 0 gives the empty prompt's state, 1 changes no bit.

    The rule of ComfyUI (comfy/sd1_clip.py, ClipTokenWeightEncoder), and of compel above 1.
    AUTOMATIC1111 scales z itself and then restores its mean, and says of leaving the mean alone
    that it "seems to work better for SDXL" (modules/sd_emphasis.py).

    Args:
        states: z, (B, T, D).
        empty_states: e, of the empty prompt at the same positions, (1, T, D).
        weights: w, (T, D) float32.
    """
    weighted = torch.lerp(empty_states.float(), states.float(), weights)
    return torch.where(weights == 1, states, weighted.to(states.dtype))
