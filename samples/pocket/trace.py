"""Sphere tracing of a toy over a painted setting, with an orthographic camera, in plain numpy."""

from dataclasses import dataclass

import numpy as np

from samples.pocket.frame import Frame
from samples.pocket.settings import Light
from samples.pocket.toys import Material, Part

_STEPS = 40
_CLOSE = 0.006  # nearer than this is a hit
_REACH = 5.2  # a ray that has gone this far has missed
_BACK = 2.6  # where the rays start, in front of the toy
_BLOCK = 8  # pixels on a side that share one wide ray at first
_TETRAHEDRON = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)


@dataclass(frozen=True)
class Pose:
    """Where a toy stands, in reference units, and how it is turned (radians)."""

    x: float
    y: float
    scale: float
    yaw: float = 0.0
    pitch: float = 0.35
    side: int = 1
    height: float = 2.25


@dataclass(frozen=True)
class Surface:
    """The visible points of a toy, one per pixel that shows it."""

    rows: np.ndarray
    columns: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    part: np.ndarray


def _distance(parts: list[Part], points: np.ndarray) -> np.ndarray:
    nearest = parts[0][0](points)
    for shape, _ in parts[1:]:
        nearest = np.minimum(nearest, shape(points))
    return nearest.astype(np.float32)


def _turn(yaw: float, vectors: np.ndarray) -> np.ndarray:
    """From the camera's upright axes to the toy's own."""
    cos, sin = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    x, y, z = vectors
    return np.stack([cos * x + sin * z, y, cos * z - sin * x]).astype(np.float32)


def _view(pose: Pose) -> np.ndarray:
    """The direction in which the camera looks, in the toy's axes."""
    view = np.array([0, -np.sin(pose.pitch), -np.cos(pose.pitch)], np.float32)
    return _turn(pose.yaw, view)


def _origins(pose: Pose, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the rays of the picture's points (x, y) start, in the toy's axes."""
    u, v = (x - pose.x) / pose.scale, (pose.y - y) / pose.scale
    on_screen = np.stack([u, v * np.cos(pose.pitch), -v * np.sin(pose.pitch)]).astype(np.float32)
    return _turn(pose.yaw, on_screen) - _view(pose)[:, None] * np.float32(_BACK)


def _march(
    parts: list[Part], origin: np.ndarray, view: np.ndarray, start: np.ndarray, radius: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Follows rays of a radius until they touch the toy: distances gone, and which ones hit."""
    gone, hit = start.copy(), np.zeros(start.size, bool)
    active = np.arange(start.size)
    for _ in range(_STEPS):
        free = _distance(parts, origin[:, active] + view[:, None] * gone[active]) - radius
        gone[active] += np.maximum(free, 0) * np.float32(0.95)
        close = free < _CLOSE
        hit[active[close]] = True
        active = active[~close & (gone[active] < _REACH)]
        if active.size == 0:
            break
    return gone, hit


def surface(parts: list[Part], frame: Frame, pose: Pose) -> Surface:
    """Finds the visible points of a toy.

    One wide ray per block of pixels goes first.  Where it touches nothing, no pixel of the block
    can show the toy; elsewhere it tells how far every ray of the block may jump.
    """
    reach, s = 1.2 * pose.scale, pose.scale
    window = frame.window(
        pose.x - reach, pose.y - pose.height * s, pose.x + reach, pose.y + 0.7 * s
    )
    rows, columns = (np.arange(frame.pixels)[w] for w in window)
    view = _view(pose)
    if rows.size == 0 or columns.size == 0:
        none = np.zeros(0, int)
        return Surface(none, none, np.zeros((3, 0)), np.zeros((3, 0)), none)

    down, across = np.arange(0, rows.size, _BLOCK), np.arange(0, columns.size, _BLOCK)
    middle = (_BLOCK - 1) / 2 / frame.scale
    x = frame.x[0, columns[across]][None] + middle + 0 * down[:, None]
    y = frame.y[rows[down], 0][:, None] + middle + 0 * across[None]
    radius = _BLOCK / np.sqrt(2) / frame.scale / pose.scale
    origin = _origins(pose, x.ravel(), y.ravel())
    gone, hit = _march(parts, origin, view, np.zeros(origin.shape[1], np.float32), radius)
    spread = np.ix_(np.arange(rows.size) // _BLOCK, np.arange(columns.size) // _BLOCK)
    start = gone.reshape(x.shape)[spread]
    row, column = np.nonzero(hit.reshape(x.shape)[spread])
    start = start[row, column]

    row, column = rows[row], columns[column]
    origin = _origins(pose, frame.x[0, column], frame.y[row, 0])
    gone, hit = _march(parts, origin, view, start)
    points = (origin + view[:, None] * gone)[:, hit]
    normals = np.zeros_like(points)
    for corner in _TETRAHEDRON[:, :, None]:
        normals += corner * _distance(parts, points + corner * np.float32(0.01))
    normals /= np.maximum(np.sqrt((normals * normals).sum(0)), 1e-6)
    nearest = np.stack([shape(points) for shape, _ in parts]) if points.size else np.zeros((1, 0))
    return Surface(row[hit], column[hit], points, normals, nearest.argmin(0))


def _paint(material: Material, points: np.ndarray) -> np.ndarray:
    plain = np.broadcast_to(np.array(material.color, np.float32), (points.shape[1], 3))
    if material.second is None:
        return plain
    if material.pattern == "striped":
        marked = np.sin((points[1] + 0.35 * points[0]) * 11) > 0.05
    else:
        cell = (points + 0.12) * 2.1
        cell = cell - np.floor(cell) - 0.5
        marked = (cell * cell).sum(0) < 0.12
    return np.where(marked[:, None], np.array(material.second, np.float32), plain)


def albedo(parts: list[Part], seen: Surface) -> np.ndarray:
    """The unlit color of every visible point, shape (n, 3)."""
    color = np.zeros((seen.part.size, 3), np.float32)
    for index, (_, material) in enumerate(parts):
        here = seen.part == index
        if here.any():
            color[here] = _paint(material, seen.points[:, here])
    return color


def lamp(pose: Pose) -> np.ndarray:
    """Unit vector from the toy towards the light, in the toy's axes."""
    towards = _turn(pose.yaw, np.array([-pose.side * 0.55, 0.75, 0.55], np.float32))
    return towards / np.linalg.norm(towards)


def shade(parts: list[Part], seen: Surface, pose: Pose, light: Light) -> np.ndarray:
    """The color of every visible point in a setting's light, shape (n, 3)."""
    direct, ambient, haze = (
        np.array(v, np.float32) for v in (light.direct, light.ambient, light.haze)
    )
    towards = lamp(pose)
    half = towards - _view(pose)
    half /= np.linalg.norm(half)
    diffuse = np.clip(towards @ seen.normals, 0, 1)[:, None]
    gloss = (np.clip(half @ seen.normals, 0, 1) ** 28)[:, None]
    # Near the ground less of the sky is seen.
    open_sky = np.clip(0.6 + seen.points[1] * 0.8, 0.6, 1)[:, None]
    lit = albedo(parts, seen) * (ambient * open_sky + direct * diffuse * 0.72)
    lit = lit + 0.22 * gloss * direct
    return np.clip(lit * (1 - light.haze_amount) + haze * light.haze_amount, 0, 1)


def shadow(picture: np.ndarray, frame: Frame, pose: Pose) -> None:
    """Darkens an ellipse of the ground, away from the light, in place."""
    s = pose.scale
    x = pose.x + 0.25 * pose.side * s
    distance = np.hypot((frame.x - x) / (1.05 * s), (frame.y - pose.y) / (0.42 * s + 2))
    picture *= (1 - 0.42 * np.clip(1.25 - distance, 0, 0.8) / 0.8)[..., None]
