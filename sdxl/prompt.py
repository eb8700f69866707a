"""From text to the conditioning of the U-Net; one way for training and prediction.

B = prompts, T = 77 token positions, D = 2048 (SDXL: 768 of CLIP-L and 1280 of CLIP-bigG),
P = 1280 (the projection of the second text encoder).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from sdxl.models import SDXLModels

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
        tokens = tokenizer.tokenize(prompt)
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
    """Encode prompts (placeholders already expanded) without gradients, on the encoders' device."""
    ids = tokenize(prompts, models.tokenizer, models.tokenizer_2)
    with torch.no_grad():
        return encode_tokens(
            ids.to(models.text_encoder.device),
            models.text_encoder,
            models.text_encoder_2,
            models.tokenizer_2.eos_token_id,
            pooling,
        )
