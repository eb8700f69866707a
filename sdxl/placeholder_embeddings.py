"""New token embeddings in both text encoders (textual inversion, arXiv:2208.01618)."""

import copy
import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from sdxl.concept import Concept
from sdxl.models import SDXLModels


class ExtendedEmbedding(nn.Module):
    """A frozen embedding table and new rows behind it; only the new rows are parameters of ours."""

    def __init__(self, table: nn.Embedding, placeholder_rows: Tensor) -> None:
        """Put a float32 copy of `placeholder_rows`, (n, dim), behind `table`."""
        super().__init__()
        self.table = table
        # behind the table, since a text encoder takes its first parameter's dtype for its own
        rows = placeholder_rows.detach().float().clone()
        self.placeholder = nn.Embedding.from_pretrained(rows, freeze=False)

    @property
    def weight(self) -> Tensor:
        """The frozen table, for callers that ask an embedding for its device or dtype."""
        return self.table.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Look up ids, (B, T) int64; ids past the table are new rows. Returns (B, T, dim)."""
        size = self.table.num_embeddings
        known = self.table(input_ids.clamp(max=size - 1))
        new = self.placeholder((input_ids - size).clamp(min=0))
        return torch.where((input_ids >= size)[..., None], new.to(known.dtype), known)


class PlaceholderEmbeddings:
    """The trained rows of all placeholder tokens, which can be put into a model and taken out.

    Attributes:
        tokens: The placeholder tokens; row i of each table belongs to `tokens[i]`.
        clip_l: (n, 768) for SDXL, float32: rows of the first text encoder.
        clip_g: (n, 1280) for SDXL, float32: rows of the second.
    """

    def __init__(self, tokens: tuple[str, ...], clip_l: Tensor, clip_g: Tensor) -> None:
        """Hold the rows, and check that there is one of each for each token."""
        if not len(tokens) == len(clip_l) == len(clip_g):
            raise ValueError(
                f"{len(tokens)} placeholder tokens need as many embedding rows, "
                f"got {len(clip_l)} for the first text encoder and {len(clip_g)} for the second"
            )
        self.tokens = tokens
        self.clip_l = clip_l
        self.clip_g = clip_g

    @classmethod
    def initial(
        cls,
        concepts: Sequence[Concept],
        words: str,
        models: SDXLModels,
        generator: torch.Generator,
    ) -> "PlaceholderEmbeddings":
        """Return the rows from which the placeholder tokens of `concepts` start.

        Args:
            concepts: Their tokens together are `<s0>`, `<s1>`, ...
            words: The tokens of these words, over and over, are where the vectors of each concept
                start; empty draws them.
            models: Of the base.
            generator: On the CPU.

        Raises:
            ValueError: The words are more tokens than a concept has vectors.
        """
        tokens = sorted((t for c in concepts for t in c.placeholder_tokens), key=_number)
        drawn = cls.random(tuple(tokens), models, generator)
        if not words.strip():
            return drawn
        rows = [drawn.clip_l, drawn.clip_g]
        for i, (tokenizer, encoder) in enumerate(
            zip((models.tokenizer, models.tokenizer_2), _text_encoders(models), strict=True)
        ):
            ids = tokenizer(words.strip(), add_special_tokens=False).input_ids
            table = encoder.get_input_embeddings().weight.float().cpu()
            for concept in concepts:
                own = [_number(token) for token in concept.placeholder_tokens]
                if len(ids) > len(own):
                    raise ValueError(
                        f"ti_init {words!r} is {len(ids)} tokens, and {concept.trigger} has "
                        f"{len(own)} vectors: take a shorter word, or more vectors, such as "
                        f"token_map={concept.trigger}:{len(ids)}"
                    )
                repeated = [ids[k % len(ids)] for k in range(len(own))]
                rows[i][own] = table[repeated]
        return cls(tuple(tokens), rows[0], rows[1])

    @classmethod
    def random(
        cls, tokens: tuple[str, ...], models: SDXLModels, generator: torch.Generator
    ) -> "PlaceholderEmbeddings":
        """Draw rows at the spread of each table, N(0, std(table)), as cog-sdxl does.

        Args:
            tokens: The placeholder tokens.
            models: Whose embedding tables give width and spread.
            generator: On the CPU, so that every device starts from the same rows.
        """
        tables = [e.get_input_embeddings().weight for e in _text_encoders(models)]
        rows = [
            torch.randn(len(tokens), table.shape[1], generator=generator)
            * table.float().std().cpu()
            for table in tables
        ]
        return cls(tokens, rows[0], rows[1])

    def check_fits(self, models: SDXLModels) -> None:
        """Raise ValueError if the rows are not as wide as the text encoders of `models`."""
        for encoder, rows, name in zip(
            _text_encoders(models), (self.clip_l, self.clip_g), ("first", "second"), strict=True
        ):
            width = encoder.get_input_embeddings().weight.shape[1]
            if rows.shape[1] != width:
                raise ValueError(
                    f"the trained embeddings are {rows.shape[1]} wide, but the {name} text encoder "
                    f"of this base model is {width} wide: they were trained on another base model"
                )

    def install(self, models: SDXLModels) -> "InstalledEmbeddings":
        """Add the tokens and rows to `models`; `remove()` of the result takes them out again.

        Raises:
            ValueError: The rows are not as wide as the text encoders, so they belong to another
                kind of base model, or a tokenizer has one of the tokens already.
        """
        return InstalledEmbeddings(self, models)


class BaseVocabulary:
    """The tokenizers and embedding tables of a model as they are now, to come back to."""

    def __init__(self, models: SDXLModels) -> None:
        """Remember them; nothing is copied, since nothing changes them in place."""
        self._models = models
        self.tokenizers = (models.tokenizer, models.tokenizer_2)
        self.tables = tuple(e.get_input_embeddings() for e in _text_encoders(models))

    def restore(self) -> None:
        """Give them back to the model."""
        self._models.tokenizer, self._models.tokenizer_2 = self.tokenizers
        for encoder, table in zip(_text_encoders(self._models), self.tables, strict=True):
            encoder.set_input_embeddings(table)


class InstalledEmbeddings:
    """Placeholder tokens inside a model. `remove()` leaves it exactly as it was before."""

    def __init__(self, embeddings: PlaceholderEmbeddings, models: SDXLModels) -> None:
        """Install; see `PlaceholderEmbeddings.install`."""
        self._models = models
        self._base = BaseVocabulary(models)
        tables = self._base.tables
        self._tokens = embeddings.tokens
        self._norms = [median_norm(table.weight) for table in tables]
        rows = (embeddings.clip_l, embeddings.clip_g)
        embeddings.check_fits(models)
        models.tokenizer, models.tokenizer_2 = (
            _with_tokens(tokenizer, table.num_embeddings, self._tokens)
            for tokenizer, table in zip(self._base.tokenizers, tables, strict=True)
        )
        for encoder, table, new in zip(_text_encoders(models), tables, rows, strict=True):
            encoder.set_input_embeddings(ExtendedEmbedding(table, new.to(table.weight.device)))

    def parameters(self) -> list[nn.Parameter]:
        """The new rows of the first and of the second text encoder, each (n, dim) float32."""
        return [e.get_input_embeddings().placeholder.weight for e in _text_encoders(self._models)]

    def keep_norms(self) -> None:
        """Scale each new row back to the median norm of its table's rows.

        What a row means lies in its direction; longer ones would drown out the other words of a
        prompt (cloneofsimo/lora's norm prior, OneTrainer's preserve_embedding_norm).
        """
        with torch.no_grad():
            for rows, norm in zip(self.parameters(), self._norms, strict=True):
                rows.mul_(norm / rows.norm(dim=1, keepdim=True))

    def state(self) -> PlaceholderEmbeddings:
        """Return a copy of the rows as they are now, on the CPU."""
        clip_l, clip_g = (p.detach().clone().cpu() for p in self.parameters())
        return PlaceholderEmbeddings(self._tokens, clip_l, clip_g)

    def remove(self) -> None:
        """Give the model its own tokenizers and embedding tables back."""
        self._base.restore()


def median_norm(table: Tensor) -> Tensor:
    """Return the median Euclidean norm of the rows of `table`, (rows, dim), as a float32 scalar."""
    return table.detach().float().norm(dim=1).median()


def _number(token: str) -> int:
    """Return i of the placeholder token `<s{i}>`: its row."""
    return int(token[2:-1])


def _text_encoders(models: SDXLModels) -> tuple[nn.Module, nn.Module]:
    return models.text_encoder, models.text_encoder_2


@functools.lru_cache(maxsize=8)
def _with_tokens(
    tokenizer: CLIPTokenizer, table_size: int, tokens: tuple[str, ...]
) -> CLIPTokenizer:
    """Return a copy with the tokens; kept, since tokenizers 0.23 never frees one whole."""
    extended = copy.deepcopy(tokenizer)
    known = [token for token in tokens if token in tokenizer.get_vocab()]
    if known:
        raise ValueError(f"the base model's tokenizer has the token {known[0]} already")
    extended.add_tokens(list(tokens))
    ids = extended.convert_tokens_to_ids(list(tokens))
    assert ids == list(range(table_size, table_size + len(tokens))), (
        f"new tokens got ids {ids}, expected them right behind the table of {table_size} rows"
    )
    return extended
