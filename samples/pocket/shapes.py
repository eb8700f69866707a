"""Signed distance functions of the toys' parts.

A shape is a function from points, an array of shape (3, n), to n distances: negative inside,
positive outside and never larger than the true distance, which is what sphere tracing needs.
The y axis points up and a toy stands on y = 0; one unit is about half a toy.
"""

from collections.abc import Callable

import numpy as np

Shape = Callable[[np.ndarray], np.ndarray]
Vector = tuple[float, float, float]


def length(*components: np.ndarray) -> np.ndarray:
    """Euclidean length of vectors given by their components."""
    total = components[0] * components[0]
    for component in components[1:]:
        total = total + component * component
    return np.sqrt(total)


def sphere(center: Vector, radius: float, squash: float = 1.0) -> Shape:
    """A ball, stretched vertically by `squash`."""
    x, y, z = center
    # Dividing y alone makes the distance wrong by up to 1 / squash; the factor keeps it a bound.
    bound = min(1.0, squash)

    def distance(p: np.ndarray) -> np.ndarray:
        return (length(p[0] - x, (p[1] - y) / squash, p[2] - z) - radius) * bound

    return distance


def box(center: Vector, half: Vector, rounding: float = 0.05) -> Shape:
    """A box with rounded edges."""

    def distance(p: np.ndarray) -> np.ndarray:
        q = [np.abs(p[i] - center[i]) - (half[i] - rounding) for i in range(3)]
        outside = length(*[np.maximum(v, 0) for v in q])
        inside = np.minimum(np.maximum(np.maximum(q[0], q[1]), q[2]), 0)
        return outside + inside - rounding

    return distance


def cylinder(
    center: Vector, radius: float, half_height: float, rounding: float = 0.04, axis: int = 1
) -> Shape:
    """A cylinder along one of the axes."""
    first, second = (i for i in range(3) if i != axis)

    def distance(p: np.ndarray) -> np.ndarray:
        around = length(p[first] - center[first], p[second] - center[second]) - (radius - rounding)
        along = np.abs(p[axis] - center[axis]) - (half_height - rounding)
        outside = length(np.maximum(around, 0), np.maximum(along, 0))
        return outside + np.minimum(np.maximum(around, along), 0) - rounding

    return distance


def _slope(radius: float, height: float) -> tuple[float, float]:
    side = float(np.hypot(radius, height))
    return height / side, radius / side


def cone(base: Vector, radius: float, height: float) -> Shape:
    """An upright cone; `base` is the middle of its foot."""
    x, y, z = base
    outward, upward = _slope(radius, height)

    def distance(p: np.ndarray) -> np.ndarray:
        side = length(p[0] - x, p[2] - z) * outward + (p[1] - y - height) * upward
        return np.maximum(side, y - p[1])

    return distance


def pyramid(base: Vector, radius: float, height: float) -> Shape:
    """A square pyramid; `radius` is half a side of its foot."""
    x, y, z = base
    outward, upward = _slope(radius, height)

    def distance(p: np.ndarray) -> np.ndarray:
        reach = np.maximum(np.abs(p[0] - x), np.abs(p[2] - z))
        return np.maximum(reach * outward + (p[1] - y - height) * upward, y - p[1])

    return distance


def torus(center: Vector, radius: float, tube: float) -> Shape:
    """An upright ring that faces the camera."""
    x, y, z = center

    def distance(p: np.ndarray) -> np.ndarray:
        return length(length(p[0] - x, p[1] - y) - radius, p[2] - z) - tube

    return distance


def dome(center: Vector, radius: float, squash: float = 0.8) -> Shape:
    """The upper half of a ball."""
    ball = sphere(center, radius, squash)
    return lambda p: np.maximum(ball(p), center[1] - p[1])


def _extrude(outline: Callable[[np.ndarray, np.ndarray], np.ndarray], half_depth: float) -> Shape:
    def distance(p: np.ndarray) -> np.ndarray:
        flat, deep = outline(p[0], p[1]), np.abs(p[2]) - half_depth
        outside = length(np.maximum(flat, 0), np.maximum(deep, 0))
        return np.minimum(np.maximum(flat, deep), 0) + outside

    return distance


def star(center: Vector, radius: float) -> Shape:
    """A thick five-pointed star that faces the camera."""
    cos36, sin36 = 0.809016994, 0.587785252
    notch_x, notch_y = 0.45 * sin36, 0.45 * cos36 - 1.0
    notch = notch_x * notch_x + notch_y * notch_y

    def outline(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # Two mirrors and an absolute value fold all five points onto one.
        x, y = np.abs(x - center[0]), y - center[1]
        fold = 2 * np.maximum(cos36 * x - sin36 * y, 0)
        x, y = x - fold * cos36, y + fold * sin36
        fold = 2 * np.maximum(-cos36 * x - sin36 * y, 0)
        x, y = np.abs(x + fold * cos36), y + fold * sin36 - radius
        along = np.clip((x * notch_x + y * notch_y) / notch, 0, radius)
        edge = length(x - notch_x * along, y - notch_y * along)
        return edge * np.sign(y * notch_x - x * notch_y)

    return _extrude(outline, 0.2)


def heart(tip: Vector, size: float) -> Shape:
    """A thick heart that faces the camera; `tip` is its lowest point."""

    def outline(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = np.abs((x - tip[0]) / size), (y - tip[1]) / size
        lobe = length(x - 0.25, y - 0.75) - 0.35355
        side = 0.5 * np.maximum(x + y, 0)
        flank = np.minimum(length(x, y - 1), length(x - side, y - side)) * np.sign(x - y)
        return np.where(x + y > 1, lobe, flank) * size

    return _extrude(outline, 0.22)


def moved(shape: Shape, offset: Vector, scale: float = 1.0) -> Shape:
    """The same shape, scaled about the origin and then moved."""
    shift = np.array(offset, np.float32)[:, None]
    return lambda p: shape((p - shift) / scale) * scale
