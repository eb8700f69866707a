"""The trigger word and the placeholder tokens that stand for it. Knows no torch."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

PLACEHOLDER = re.compile(r"<s\d+>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """A word of the user's, and the new tokens whose embeddings are trained for it.

    Attributes:
        trigger: What the user writes in captions and prompts, such as `TOK`.
        placeholder_tokens: The tokens it is replaced by, such as `("<s0>", "<s1>")`.
    """

    trigger: str
    placeholder_tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the trigger and the tokens.

        Raises:
            ValueError: The trigger is empty, has outer blanks or looks like a placeholder token,
                or there is no placeholder token.
        """
        if not self.trigger or self.trigger != self.trigger.strip():
            raise ValueError(
                "token_string must be a word without blanks at its ends, such as TOK, "
                f"got {self.trigger!r}"
            )
        if PLACEHOLDER.search(self.trigger):
            raise ValueError(
                f"token_string must not contain a placeholder such as <s0>, got {self.trigger!r}: "
                "choose a word of your own, such as TOK"
            )
        if not self.placeholder_tokens:
            raise ValueError(f"the concept {self.trigger!r} has no placeholder token")

    @classmethod
    def with_vectors(cls, trigger: str, num_vectors: int) -> "Concept":
        """Return the concept `trigger` -> `<s0>...<s{num_vectors - 1}>`, cog-sdxl's naming."""
        return cls(trigger=trigger, placeholder_tokens=tuple(f"<s{i}>" for i in range(num_vectors)))

    @property
    def placeholder_text(self) -> str:
        """The placeholder tokens as they stand in an expanded prompt: `<s0><s1>`."""
        return "".join(self.placeholder_tokens)


def occurs(trigger: str, text: str) -> bool:
    """Tell whether `trigger` stands in `text` as a whole word, in the same case."""
    return _whole_words([trigger]).search(text) is not None


def expand(text: str, concepts: Iterable[Concept]) -> str:
    """Replace every trigger in `text` by its placeholder tokens.

    Whole words only (`TOK` leaves `TOKYO` alone), case kept, the longest trigger first (`TOK2`
    before `TOK`). Captions in training and prompts in prediction both come through here.
    """
    by_trigger = {concept.trigger: concept.placeholder_text for concept in concepts}
    if not by_trigger:
        return text
    return _whole_words(by_trigger).sub(lambda match: by_trigger[match.group()], text)


def _whole_words(words: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    # \b would fail beside a trigger that starts or ends in a sign, such as "sks!"
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
