"""What stands in the pictures: named toys, random toys without a name, and the sample subjects.

A toy is a list of parts, each a shape and a material.  The base learns the ten named kinds in ten
named colors, and random assemblies that its captions only call "a toy" or "a thing".  The sample
subjects are none of these: no base picture ever shows one.
"""

from dataclasses import dataclass

import numpy as np

from samples.pocket import shapes
from samples.pocket.shapes import Shape

Color = tuple[float, float, float]

COLORS: dict[str, Color] = {
    "red": (0.85, 0.10, 0.10),
    "orange": (0.98, 0.50, 0.06),
    "yellow": (0.97, 0.87, 0.12),
    "green": (0.13, 0.65, 0.18),
    "blue": (0.12, 0.27, 0.88),
    "purple": (0.50, 0.14, 0.68),
    "pink": (0.98, 0.52, 0.73),
    "white": (0.95, 0.95, 0.95),
    "black": (0.09, 0.09, 0.10),
    "brown": (0.45, 0.26, 0.12),
}
KINDS = (
    "ball",
    "cube",
    "cone",
    "cylinder",
    "ring",
    "star",
    "pyramid",
    "heart",
    "mushroom",
    "tree",
)
# Kinds with a flat or round top that another toy can stand on, and how high that top is.
STACKABLE = {"ball": 1.6, "cube": 1.36, "cylinder": 1.6}
# Kinds that are flat: turned too far they would show only their edge.
FLAT = ("ring", "star", "heart")
SUBJECTS = ("robot", "monster")
UNNAMED = "toy"
STACK_SCALE = 0.62
COLOR_NAMES = tuple(COLORS)


@dataclass(frozen=True)
class Material:
    """A surface: one color, or two in a pattern (`plain`, `striped` or `dotted`)."""

    color: Color
    second: Color | None = None
    pattern: str = "plain"


@dataclass(frozen=True)
class Toy:
    """What a caption can say about a toy; `kind` is `UNNAMED` for a random one."""

    kind: str
    color: str = ""
    second: str = ""
    pattern: str = "plain"


Part = tuple[Shape, Material]


def default_second(color: str) -> str:
    """The second color of a pattern when a caption names only one."""
    return "black" if color == "white" else "white"


def material(toy: Toy) -> Material:
    """The surface that a toy's words describe."""
    second = COLORS[toy.second] if toy.second else None
    return Material(COLORS[toy.color], second, toy.pattern)


def named_parts(toy: Toy) -> list[Part]:
    """The parts of one of the ten named kinds."""
    surface = material(toy)
    body: dict[str, Shape] = {
        "ball": shapes.sphere((0, 0.8, 0), 0.8),
        "cube": shapes.box((0, 0.68, 0), (0.68, 0.68, 0.68)),
        "cone": shapes.cone((0, 0, 0), 0.82, 1.75),
        "cylinder": shapes.cylinder((0, 0.8, 0), 0.6, 0.8),
        "ring": shapes.torus((0, 0.84, 0), 0.6, 0.23),
        "star": shapes.star((0, 0.82, 0), 1.0),
        "pyramid": shapes.pyramid((0, 0, 0), 0.85, 1.45),
        "heart": shapes.heart((0, 0, 0), 1.55),
        "mushroom": shapes.dome((0, 0.75, 0), 0.9, 0.95),
        "tree": shapes.cone((0, 0.5, 0), 0.78, 1.4),
    }
    parts: list[Part] = [(body[toy.kind], surface)]
    if toy.kind == "mushroom":
        parts.append((shapes.cylinder((0, 0.4, 0), 0.28, 0.42), Material(COLORS["white"])))
    if toy.kind == "tree":
        parts.append((shapes.cylinder((0, 0.3, 0), 0.2, 0.32), Material(COLORS["brown"])))
    return parts


def stacked_parts(top: Toy, bottom: Toy) -> list[Part]:
    """One toy on top of another, both smaller than usual."""
    height = STACKABLE[bottom.kind] * STACK_SCALE
    lower = [(shapes.moved(s, (0, 0, 0), STACK_SCALE), m) for s, m in named_parts(bottom)]
    upper = [(shapes.moved(s, (0, height, 0), STACK_SCALE), m) for s, m in named_parts(top)]
    return lower + upper


def random_toy(rng: np.random.Generator) -> Toy:
    """One of the named kinds, in random colors and a random pattern."""
    kind, color = KINDS[rng.integers(len(KINDS))], COLOR_NAMES[rng.integers(len(COLORS))]
    pattern = ("plain", "plain", "striped", "dotted")[rng.integers(4)]
    if pattern == "plain":
        return Toy(kind, color)
    second = COLOR_NAMES[rng.integers(len(COLORS))]
    if second == color or rng.random() < 0.5:
        second = default_second(color)
    return Toy(kind, color, second, pattern)


def random_stack(rng: np.random.Generator) -> tuple[Toy, Toy]:
    """A toy and the toy that it stands on."""
    top, bottom = random_toy(rng), random_toy(rng)
    kind = tuple(STACKABLE)[rng.integers(len(STACKABLE))]
    return top, Toy(kind, bottom.color, bottom.second, bottom.pattern)


def _body(rng: np.random.Generator, foot: float) -> tuple[Shape, float]:
    """One part of the trunk that stands on `foot`, and its height."""
    r = float(rng.uniform(0.28, 0.64))
    h = r * float(rng.uniform(0.7, 1.25))
    depth = r * float(rng.uniform(0.65, 1.0))
    choice = rng.integers(5)
    if choice == 0:
        return shapes.sphere((0, foot + h, 0), r, h / r), 2 * h
    if choice == 1:
        return shapes.box((0, foot + h, 0), (r, h, depth)), 2 * h
    if choice == 2:
        return shapes.cylinder((0, foot + h, 0), r, h), 2 * h
    if choice == 3:
        return shapes.cone((0, foot, 0), r, 2.2 * h), 2 * h
    return shapes.dome((0, foot, 0), r, 1.4 * h / r), 1.4 * h


def _limb(rng: np.random.Generator, center: shapes.Vector, r: float) -> Shape:
    choice = rng.integers(4)
    if choice == 0:
        return shapes.sphere(center, r)
    if choice == 1:
        return shapes.box(center, (r, r * 1.6, r), 0.03)
    if choice == 2:
        return shapes.cylinder(center, r, r * 1.8)
    return shapes.cone(center, r, r * 3)


def _pair(rng: np.random.Generator, x: float, y: float, z: float, r: float) -> list[Shape]:
    """The same limb left and right; mirrored shapes need the same random choice."""
    seed = int(rng.integers(1 << 30))
    return [_limb(np.random.default_rng(seed), (side * x, y, z), r) for side in (-1, 1)]


def unnamed_parts(rng: np.random.Generator) -> list[Part]:
    """A random toy: a trunk of one to three bodies with limbs, eyes and hats in unnamed colors.

    They teach the base what "a toy" means in general, so that a new subject is not the first
    thing with several parts, or in other than the ten named colors, that it meets.
    """
    palette = [Material(_random_color(rng)) for _ in range(int(rng.integers(2, 5)))]

    def surface() -> Material:
        return palette[rng.integers(len(palette))]

    parts: list[Part] = []
    foot = 0.0
    if rng.random() < 0.5:  # legs
        r, height = float(rng.uniform(0.1, 0.22)), float(rng.uniform(0.2, 0.45))
        legs = surface()
        x = float(rng.uniform(0.15, 0.35))
        parts += [(shapes.cylinder((s * x, height / 2, 0), r, height / 2), legs) for s in (-1, 1)]
        foot = height * 0.9
    for _ in range(int(rng.integers(1, 4))):
        body, height = _body(rng, foot)
        if foot + height > 2.1:
            break
        parts.append((body, surface()))
        foot += height * 0.93
    top = min(max(foot, 0.6), 1.95)
    for _ in range(int(rng.integers(0, 4))):
        r, y = float(rng.uniform(0.08, 0.24)), float(rng.uniform(0.15, 1.0)) * top
        x, z = float(rng.uniform(0.12, 0.7)), float(rng.uniform(-0.1, 0.5))
        look = surface()
        if rng.random() < 0.25:
            parts.append((_limb(rng, (0, y, z), r), look))
        else:
            parts += [(shape, look) for shape in _pair(rng, x, y, z, r)]
    if len(parts) < 2:
        parts.append((shapes.sphere((0, 0.6, 0), 0.6), surface()))
    return parts


def _random_color(rng: np.random.Generator) -> Color:
    red, green, blue = (float(v) for v in rng.uniform(0.05, 0.98, 3))
    return red, green, blue


def _plain(red: float, green: float, blue: float) -> Material:
    return Material((red, green, blue))


def _robot() -> list[Part]:
    teal, amber = _plain(0.10, 0.66, 0.66), _plain(0.97, 0.66, 0.14)
    dark, lens, crimson = (
        _plain(0.20, 0.20, 0.26),
        _plain(0.98, 0.98, 0.92),
        _plain(0.88, 0.12, 0.30),
    )
    return [
        (shapes.box((0, 0.78, 0), (0.48, 0.38, 0.34)), teal),
        (shapes.box((0, 1.46, 0), (0.42, 0.29, 0.30)), amber),
        (shapes.sphere((-0.18, 1.50, 0.26), 0.13), lens),
        (shapes.sphere((0.18, 1.50, 0.26), 0.13), lens),
        (shapes.cylinder((0, 1.82, 0), 0.05, 0.12, 0.01), dark),
        (shapes.sphere((0, 2.0, 0), 0.14), crimson),
        (shapes.cylinder((-0.64, 0.80, 0), 0.14, 0.33), amber),
        (shapes.cylinder((0.64, 0.80, 0), 0.14, 0.33), amber),
        (shapes.cylinder((-0.24, 0.2, 0), 0.17, 0.22), dark),
        (shapes.cylinder((0.24, 0.2, 0), 0.17, 0.22), dark),
        (shapes.box((0, 0.80, 0.32), (0.24, 0.17, 0.05), 0.02), dark),
    ]


def _monster() -> list[Part]:
    lime, magenta = _plain(0.62, 0.85, 0.14), _plain(0.80, 0.12, 0.55)
    dark, white = _plain(0.08, 0.08, 0.12), _plain(0.97, 0.97, 0.97)
    return [
        (shapes.sphere((0, 0.78, 0), 0.72, 1.05), lime),
        (shapes.cone((-0.42, 1.24, 0), 0.22, 0.66), magenta),
        (shapes.cone((0.42, 1.24, 0), 0.22, 0.66), magenta),
        (shapes.sphere((0, 1.0, 0.52), 0.33), white),
        (shapes.sphere((0, 1.0, 0.78), 0.15), dark),
        (shapes.box((0, 0.48, 0.64), (0.32, 0.08, 0.1), 0.03), dark),
        (shapes.sphere((-0.78, 0.7, 0.1), 0.22), magenta),
        (shapes.sphere((0.78, 0.7, 0.1), 0.22), magenta),
        (shapes.sphere((-0.34, 0.12, 0.15), 0.26), magenta),
        (shapes.sphere((0.34, 0.12, 0.15), 0.26), magenta),
    ]


def subject_parts(name: str) -> list[Part]:
    """The parts of a sample subject, in colors that no color word names."""
    return {"robot": _robot, "monster": _monster}[name]()
