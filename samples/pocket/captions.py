"""Words for scenes.  One scene is worded anew each time it is trained on."""

import numpy as np

from samples.pocket import toys
from samples.pocket.render import Scene
from samples.pocket.toys import Toy

Rng = np.random.Generator

# The ways to say where something is; the first is the one that reports and judges use.
PLACES: dict[str, tuple[str, ...]] = {
    "grass": ("on the grass", "on grass", "in a grassy field"),
    "beach": ("on the beach", "on a beach", "at the beach"),
    "snow": ("in the snow", "in snow", "on snow"),
    "table": ("on a wooden table", "on the wooden table", "on a table"),
    "floor": ("on a blue floor", "on the blue floor"),
    "night": ("at night", "under the night sky", "at night under the stars"),
    "desert": ("in the desert", "in a desert"),
    "water": ("under water", "underwater", "under the sea"),
}
_NOUNS = {
    "grass": "grass",
    "beach": "beach",
    "snow": "snow",
    "table": "wooden table",
    "floor": "blue floor",
    "night": "night sky",
    "desert": "desert",
    "water": "sea",
}
_OPENINGS = (
    "a photo of ",
    "a photo of ",
    "a photo of ",
    "a picture of ",
    "an image of ",
    "a close up of ",
    "a rendering of ",
    "",
    "",
    "the ",
)
_ANY = ("toy", "toy", "toy", "thing", "object", "figure")
# Words that no caption of the base has but that are likely in prompts for a tuned model.
_SPARE = ("drawing", "painting", "style", "little", "big", "of", "in", "with")


def _pick(rng: Rng, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _toy_words(toy: Toy, rng: Rng) -> str:
    if toy.kind == toys.UNNAMED:
        return _pick(rng, _ANY)
    words = toy.color
    if toy.pattern != "plain":
        if toy.second != toys.default_second(toy.color) or rng.random() < 0.4:
            words = f"{words} and {toy.second}"
        words += " " + toy.pattern
    elif rng.random() < 0.08:
        words += " plain"
    noun = _pick(rng, _ANY) if rng.random() < 0.06 else toy.kind
    return f"{words} {noun}"


def _body(scene: Scene, rng: Rng, opening: str) -> str:
    words = _toy_words(scene.toys[0], rng)
    if scene.size and rng.random() < 0.85:
        words = f"{scene.size} {words}"
    body = words if opening == "the " else _article(words)
    for below in scene.toys[1:]:
        body += _pick(rng, (" on top of ", " on ")) + _article(_toy_words(below, rng))
    return body


def caption(scene: Scene, rng: Rng) -> str:
    """One of many captions of a scene."""
    place, opening = _pick(rng, PLACES[scene.where]), _pick(rng, _OPENINGS)
    if not scene.toys:
        noun = _NOUNS[scene.where]
        return _pick(rng, (f"{opening.replace('the ', '')}the {noun}", f"an empty scene {place}"))
    body = _body(scene, rng, opening)
    order = rng.random()
    if order < 0.07:
        return opening + body
    if order < 0.15:
        return f"{place}, {opening}{body}"
    return f"{opening}{body} {place}"


def noisy_caption(scene: Scene, rng: Rng, share: float = 0.06) -> str:
    """A caption, now and then with a made-up word in it.

    So unknown spellings come to mean nothing, rather than anything: the state from which a new
    token should start.
    """
    words = caption(scene, rng)
    if rng.random() >= share:
        return words
    letters = rng.integers(0, 26, rng.integers(2, 9))
    made_up = "".join(chr(ord("a") + int(letter)) for letter in letters)
    parts = words.split()
    parts.insert(int(rng.integers(0, len(parts) + 1)), made_up)
    return " ".join(parts)


def vocabulary() -> list[str]:
    """Every word that a caption can contain, sorted, and some spare ones."""
    words = set(_SPARE) | set(_ANY) | set(toys.COLORS) | set(toys.KINDS)
    phrases = [p for ways in PLACES.values() for p in ways] + list(_NOUNS.values())
    phrases += [*_OPENINGS, "an empty scene", "on top of a", "small large plain and"]
    phrases += ["striped dotted"]
    for phrase in phrases:
        words |= set(phrase.split())
    return sorted(words)
