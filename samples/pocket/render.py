"""Captioned pictures of small toys in eight settings: the world that the pocket base knows.

Everything is a function of a random generator: the same seed gives the same scene, at any size.
"""

from dataclasses import dataclass

import numpy as np

from samples.pocket import settings, toys, trace
from samples.pocket.frame import REFERENCE, Crop, Frame, average_down, to_bytes
from samples.pocket.toys import Part, Toy
from samples.pocket.trace import Pose

Rng = np.random.Generator

# Shares of all scenes; the rest shows one named toy.
_EMPTY, _STACK, _UNNAMED = 0.035, 0.125, 0.28
_CROPPED = 0.06
WHOLE = Crop()
_SCALES = {"": (27.0, 40.0), "small": (16.0, 21.0), "large": (40.0, 47.0)}
_SUBJECT_SCALE = (38.0, 46.0)


@dataclass(frozen=True)
class Scene:
    """What is in a picture, enough to word a caption in many ways."""

    where: str
    toys: tuple[Toy, ...] = ()
    size: str = ""
    crop: Crop = WHOLE


@dataclass(frozen=True)
class Render:
    """A picture (uint8, size x size x 3), what it shows, and how much of each pixel is the toy."""

    picture: np.ndarray
    scene: Scene
    mask: np.ndarray


def _place(rng: Rng, scale: float, turn: float, horizon: float) -> Pose:
    """A pose that keeps the whole toy in the picture and its foot on the ground."""
    lowest = max(1.95 * scale + 3, horizon + 8)
    y = min(rng.uniform(lowest, max(REFERENCE - 0.35 * scale - 3, lowest + 1)), REFERENCE - 6)
    x = rng.uniform(min(0.95 * scale, 60), max(REFERENCE - 0.95 * scale, 68))
    yaw, pitch = rng.uniform(-turn, turn), rng.uniform(0.22, 0.48)
    return Pose(x, y, scale, yaw, pitch, side=1 if rng.random() < 0.5 else -1)


def _crop(rng: Rng) -> Crop:
    if rng.random() >= _CROPPED:
        return WHOLE
    zoom = float(rng.uniform(1.1, 1.5))
    top, left = (float(round(v)) for v in rng.uniform(0, REFERENCE * (zoom - 1), 2))
    return Crop(zoom, top, left)


def _choose(rng: Rng, where: str | None, crops: bool) -> tuple[Scene, list[Part]]:
    where = where or settings.SETTINGS[rng.integers(len(settings.SETTINGS))]
    crop = _crop(rng)
    crop = crop if crops else WHOLE
    share = rng.random()
    if share < _EMPTY:
        return Scene(where, crop=crop), []
    size = ("", "", "small", "large")[rng.integers(4)]
    if share < _EMPTY + _STACK:
        stack = toys.random_stack(rng)
        return Scene(where, stack, size, crop), toys.stacked_parts(*stack)
    if share < _EMPTY + _STACK + _UNNAMED:
        return Scene(where, (Toy(toys.UNNAMED),), size, crop), toys.unnamed_parts(rng)
    toy = toys.random_toy(rng)
    return Scene(where, (toy,), size, crop), toys.named_parts(toy)


def compose(
    where: str, parts: list[Part], pose: Pose, frame: Frame, picture: np.ndarray
) -> np.ndarray:
    """Draws a toy into a supersampled picture in place; returns its supersampled mask."""
    mask = np.zeros((frame.pixels, frame.pixels), np.float32)
    trace.shadow(picture, frame, pose)
    seen = trace.surface(parts, frame, pose)
    picture[seen.rows, seen.columns] = trace.shade(parts, seen, pose, settings.light(where))
    mask[seen.rows, seen.columns] = 1
    return mask


def scene(rng: Rng, where: str | None = None, size: int = REFERENCE, crops: bool = False) -> Render:
    """A random scene of the base's own world.

    Args:
        rng: source of all choices; one draw of the same seed is one scene at any size.
        where: the setting, or a random one.
        size: width and height of the picture.
        crops: let a few pictures be windows of a larger one, which `Scene.crop` then tells.
    """
    content, parts = _choose(rng, where, crops)
    frame = Frame(size, content.crop)
    picture, horizon = settings.paint(content.where, frame, rng)
    mask = np.zeros((frame.pixels, frame.pixels), np.float32)
    if parts:
        scale = float(rng.uniform(*_SCALES[content.size]))
        turn = 0.75 if content.toys[0].kind in toys.FLAT else 1.2
        turn = 0.7 if content.toys[0].kind == toys.UNNAMED else turn
        pose = _place(rng, scale, turn, horizon)
        mask = compose(content.where, parts, pose, frame, picture)
    return Render(to_bytes(average_down(picture)), content, average_down(mask))


def usual_pose(rng: Rng, toy: Toy, horizon: float) -> Pose:
    """A random pose of a named toy at the usual size."""
    turn = 0.75 if toy.kind in toys.FLAT else 1.2
    return _place(rng, float(rng.uniform(*_SCALES[""])), turn, horizon)


def toy_scene(rng: Rng, toy: Toy, where: str, size: int = REFERENCE) -> Render:
    """A scene with a given named toy at the usual size."""
    frame = Frame(size)
    picture, horizon = settings.paint(where, frame, rng)
    pose = usual_pose(rng, toy, horizon)
    mask = compose(where, toys.named_parts(toy), pose, frame, picture)
    return Render(to_bytes(average_down(picture)), Scene(where, (toy,)), average_down(mask))


def subject_scene(rng: Rng, subject: str, where: str, size: int = REFERENCE) -> Render:
    """A scene with a sample subject, which the base's world does not have."""
    frame = Frame(size)
    picture, horizon = settings.paint(where, frame, rng)
    pose = _place(rng, float(rng.uniform(*_SUBJECT_SCALE)), 0.6, horizon)
    mask = compose(where, toys.subject_parts(subject), pose, frame, picture)
    content = Scene(where, (Toy(toys.UNNAMED),))
    return Render(to_bytes(average_down(picture)), content, average_down(mask))
