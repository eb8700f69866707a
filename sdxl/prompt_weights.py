r"""Weights of words in prompts: `a (red:1.3) ball`. Knows no torch.

Only `(text:number)` is syntax, with a number from 0 to 2; weights of nested groups multiply. All
other text is what it says: `(close-up)`, `((big))`, `5D--`, `:)` and brackets without a partner.
A number behind digits and a colon is a ratio or a time, `(16:9)` or `(at 5:30)`, unless it has a
decimal point. An escaped bracket, `\(` or `\)`, belongs to no group; where a prompt has groups it
loses its backslash, as in AUTOMATIC1111 and ComfyUI, and a prompt without any stays as written.
"""

import re
from dataclasses import dataclass

MAX_WEIGHT = 2.0

_BRACKET = re.compile(
    r"""\\[()]
    | \(
    | (?: : \s* (?P<weight> [+-]?\d*\.\d+ | (?<!\d:)[+-]?\d+\.? ) \s* )? \)""",
    re.VERBOSE | re.ASCII,
)
_ESCAPED = re.compile(r"\\([()])")


@dataclass(frozen=True, slots=True)
class WeightedText:
    """A piece of a prompt and how much it counts: 1 is as usual, 0 not at all."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class _Edge:
    """Where a group opens, with its weight, or closes, with None; the signs there are no text."""

    start: int
    end: int
    weight: float | None


def read_weights(prompt: str, name: str = "prompt") -> list[WeightedText]:
    """Return the pieces of a prompt with their weights, the groups' signs taken out.

    A piece ends where a group begins or ends; a prompt without groups is one piece.

    Args:
        prompt: As the user writes it, or with its placeholders expanded.
        name: Of the input it came from.

    Raises:
        ValueError: A piece has a weight below 0 or above 2.
    """
    edges = _group_edges(prompt)
    if not edges:
        return [WeightedText(prompt, 1.0)]
    pieces, weights, position = [], [1.0], 0
    for edge in edges:
        pieces.append(WeightedText(prompt[position : edge.start], weights[-1]))
        if edge.weight is None:
            weights.pop()
        else:
            weights.append(weights[-1] * edge.weight)
        position = edge.end
    pieces.append(WeightedText(prompt[position:], weights[-1]))
    pieces = [WeightedText(_ESCAPED.sub(r"\1", p.text), p.weight) for p in pieces if p.text.strip()]
    for piece in pieces:
        if not 0 <= piece.weight <= MAX_WEIGHT:
            raise ValueError(
                f"{name} must have weights from 0 to {MAX_WEIGHT:g}, got {piece.weight:g} for "
                f"{piece.text.strip()!r}: take another number, or write \\( and \\) where the "
                "brackets belong to the text"
            )
    return pieces


def _group_edges(prompt: str) -> list[_Edge]:
    """Return where groups open and close, in the order of the text."""
    open_brackets: list[re.Match[str]] = []
    edges: list[_Edge] = []
    for bracket in _BRACKET.finditer(prompt):
        if bracket[0] == "(":
            open_brackets.append(bracket)
        elif bracket[0].endswith(")") and bracket[0][0] != "\\" and open_brackets:
            opening = open_brackets.pop()
            has_text = prompt[opening.end() : bracket.start()].strip()
            if bracket["weight"] and has_text:
                weight = float(bracket["weight"])
                edges.append(_Edge(opening.start(), opening.end(), weight))
                edges.append(_Edge(bracket.start(), bracket.end(), None))
    return sorted(edges, key=lambda edge: edge.start)
