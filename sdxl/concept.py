"""The trigger word and the placeholder tokens that stand for it. Knows no torch."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

PLACEHOLDER = re.compile(r"<s\d+>")
DEFAULT_TRIGGER = "TOK"
DEFAULT_NUM_VECTORS = 2
MAX_NUM_VECTORS = 32


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
        trigger = self.trigger
        if not trigger or trigger != trigger.strip() or not trigger.isprintable():
            raise ValueError(
                "token_string must be a word without blanks at its ends, such as TOK, "
                f"got {trigger!r}"
            )
        if PLACEHOLDER.search(self.trigger):
            raise ValueError(
                f"token_string must not contain a placeholder such as <s0>, got {self.trigger!r}: "
                "choose a word of your own, such as TOK"
            )
        if not self.placeholder_tokens:
            raise ValueError(f"the concept {self.trigger!r} has no placeholder token")

    @classmethod
    def with_vectors(cls, trigger: str, num_vectors: int, first: int = 0) -> "Concept":
        """Return the concept `trigger` -> `<s{first}><s{first + 1}>...`, cog-sdxl's naming."""
        numbers = range(first, first + num_vectors)
        return cls(trigger=trigger, placeholder_tokens=tuple(f"<s{i}>" for i in numbers))

    @property
    def placeholder_text(self) -> str:
        """The placeholder tokens as they stand in an expanded prompt: `<s0><s1>`."""
        return "".join(self.placeholder_tokens)


def read_concepts(token_string: str, token_map: str = "") -> tuple[Concept, ...]:
    """Return the concepts that the inputs of those names ask for, the main one first.

    Args:
        token_string: The trigger of the one concept, of two vectors, that an empty `token_map`
            leaves.
        token_map: Such as `TOK:2,HAT:4`: triggers and how many vectors each is.

    Raises:
        ValueError: `token_map` is not of that form, names a trigger twice, or lacks a
            `token_string` that was given.
    """
    if not token_map.strip():
        return (Concept.with_vectors(token_string, DEFAULT_NUM_VECTORS),)
    concepts: list[Concept] = []
    for entry in token_map.split(","):
        trigger, _, number = entry.strip().rpartition(":")
        if not number.isdecimal() or not 1 <= int(number) <= MAX_NUM_VECTORS:
            raise ValueError(
                "token_map must be triggers with their numbers of vectors, from 1 to "
                f"{MAX_NUM_VECTORS}, such as TOK:2,HAT:4, got {token_map!r}"
            )
        first = sum(len(concept.placeholder_tokens) for concept in concepts)
        concepts.append(Concept.with_vectors(trigger.strip(), int(number), first))
    triggers = [concept.trigger for concept in concepts]
    if len(set(triggers)) < len(triggers):
        raise ValueError(f"token_map must name each trigger once, got {token_map!r}")
    if token_string not in (DEFAULT_TRIGGER, *triggers):
        raise ValueError(
            f"token_string is {token_string!r}, which token_map {token_map!r} does not name: leave "
            "one of them out, or name it there"
        )
    return tuple(sorted(concepts, key=lambda concept: concept.trigger != token_string))


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
