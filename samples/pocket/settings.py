"""The eight painted settings: a sky or wall, a horizon, and a ground in perspective."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from samples.pocket.frame import REFERENCE, Frame
from samples.pocket.noise import noise, offset

Rgb = tuple[float, float, float]
Rng = np.random.Generator

MIDDLE = REFERENCE / 2


@dataclass(frozen=True)
class Light:
    """How a setting lights a toy: direct and ambient color, and haze over everything."""

    direct: Rgb = (1.0, 1.0, 0.96)
    ambient: Rgb = (0.45, 0.47, 0.52)
    haze: Rgb = (0.0, 0.0, 0.0)
    haze_amount: float = 0.0


LIGHTS = {
    "snow": Light((0.95, 0.97, 1.0), (0.52, 0.55, 0.62)),
    "table": Light((1.0, 0.95, 0.86), (0.48, 0.45, 0.42)),
    "night": Light((0.88, 0.90, 1.0), (0.34, 0.36, 0.46), (0.05, 0.06, 0.18), 0.08),
    "desert": Light((1.0, 0.93, 0.78), (0.50, 0.43, 0.36)),
    "water": Light((0.80, 0.98, 1.0), (0.34, 0.46, 0.50), (0.08, 0.50, 0.60), 0.26),
}


def _mix(a: np.ndarray, b: np.ndarray, amount: np.ndarray) -> np.ndarray:
    return a + (b - a) * amount[..., None]


def _fade(frame: Frame, start: float, end: float, first: Rgb, last: Rgb) -> np.ndarray:
    """A vertical gradient, shape (pixels, 1, 3)."""
    amount = np.clip((frame.y - start) / max(end - start, 1), 0, 1)
    return _mix(np.array(first, np.float32), np.array(last, np.float32), amount)


def _flat(frame: Frame, rng: Rng, band: str, sx: float = 1.0, sy: float = 1.0) -> np.ndarray:
    """Noise on an upright surface."""
    x, y = offset(rng)
    return noise(band, frame.x * np.float32(sx) + x, frame.y * np.float32(sy) + y)


def _plane(frame: Frame, horizon: float, near: float = 14.0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates on the ground, and how much detail is left at that distance."""
    depth = 60.0 / (np.maximum(frame.y - horizon, 0) + near)
    return (frame.x - MIDDLE) * depth, 60.0 * depth


def _ground(frame: Frame, rng: Rng, band: str, horizon: float, size: float = 1.0) -> np.ndarray:
    """Noise on the ground: smaller and fainter towards the horizon."""
    x, y = offset(rng)
    u, v = _plane(frame, horizon)
    # Far away the noise would be finer than a pixel and differ between picture sizes.
    fade = np.clip(1.6 * (np.maximum(frame.y - horizon, 0) + 14.0) / 60.0, 0, 1)
    return noise(band, u * np.float32(size) + x, v * np.float32(size) + y) * fade


def _spot(
    picture: np.ndarray, frame: Frame, center: tuple[float, float], radius: float, color: Rgb
) -> None:
    """Paints a soft-edged disc in place."""
    x, y = center
    window = frame.window(x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1)
    rows, columns = window
    distance = np.hypot(frame.x[:, columns] - x, frame.y[rows] - y)
    amount = np.clip((radius - distance) * min(frame.scale, 2.0) + 0.5, 0, 1)
    picture[window] = _mix(picture[window], np.array(color, np.float32), amount)


def _grass(frame: Frame, rng: Rng, horizon: float) -> np.ndarray:
    sky = _fade(frame, 0, horizon, (0.42, 0.66, 0.95), (0.78, 0.89, 0.98))
    cloud = np.clip(_flat(frame, rng, "low", 1, 2) - 0.4, 0, 1) * 0.8
    sky = _mix(sky, np.ones(3, np.float32), cloud)
    blades = 0.16 * _flat(frame, rng, "fine", 1.2, 0.5) + 0.06 * _flat(frame, rng, "low")
    ground = _fade(frame, horizon, REFERENCE, (0.36, 0.58, 0.20), (0.25, 0.55, 0.13))
    return _mix(sky, ground * (1 + blades)[..., None], frame.below(horizon))


def _beach(frame: Frame, rng: Rng, horizon: float) -> np.ndarray:
    shore = horizon + float(rng.uniform(10, 20))
    sky = _fade(frame, 0, horizon, (0.50, 0.76, 0.97), (0.90, 0.95, 0.98))
    sea = _fade(frame, horizon, shore, (0.08, 0.42, 0.66), (0.25, 0.70, 0.78))
    sea = sea * (1 + 0.08 * _flat(frame, rng, "mid", 0.6, 3))[..., None]
    sand = _fade(frame, shore, REFERENCE, (0.93, 0.84, 0.62), (0.90, 0.78, 0.53))
    sand = sand * (1 + 0.045 * _ground(frame, rng, "fine", shore))[..., None]
    picture = _mix(sky, sea, frame.below(horizon))
    wave = shore + 1.5 * np.sin(frame.x / rng.uniform(6, 11) + rng.uniform(0, 6))
    picture = _mix(picture, sand, frame.below(wave))
    foam = np.clip(2.0 - np.abs(frame.y - wave), 0, 1)
    return _mix(picture, np.full(3, 0.98, np.float32), foam)


def _snow(frame: Frame, rng: Rng, horizon: float) -> np.ndarray:
    sky = _fade(frame, 0, horizon, (0.66, 0.72, 0.80), (0.82, 0.86, 0.91))
    ground = _fade(frame, horizon, REFERENCE, (0.90, 0.93, 0.97), (0.97, 0.98, 1.0))
    ground = ground * (1 + 0.035 * _ground(frame, rng, "low", horizon, 0.6))[..., None]
    for _ in range(2):
        x, half, tall = rng.uniform(0, REFERENCE), rng.uniform(5, 9), rng.uniform(14, 24)
        side = half * (frame.y - (horizon - tall)) / tall - np.abs(frame.x - x)
        fir = np.clip(side * frame.scale + 0.5, 0, 1)
        sky = _mix(sky, np.array((0.42, 0.54, 0.52), np.float32), fir)
    picture = _mix(sky, ground, frame.below(horizon))
    for x, y in rng.uniform(0, REFERENCE, (22, 2)):
        _spot(picture, frame, (x, y), 1.1, (1.0, 1.0, 1.0))
    return picture


def _table(frame: Frame, rng: Rng, horizon: float) -> np.ndarray:
    wall = _fade(frame, 0, horizon, (0.80, 0.74, 0.64), (0.86, 0.80, 0.70))
    u, _ = _plane(frame, horizon)
    u = u + rng.uniform(0, 60)
    plank = np.floor(u / 34)
    seam = np.clip((np.abs(u / 34 - plank - 0.5) - 0.465) * 60, 0, 1)
    grain = np.sin(u * 0.6 + 2.5 * _flat(frame, rng, "low", 0.5, 0.3))
    fade = np.clip((frame.y - horizon) / 30, 0, 1)
    tone = (1 + 0.09 * np.sin(plank * 2.4) + 0.06 * grain * fade) * (1 - 0.35 * seam)
    wood = _fade(frame, horizon, REFERENCE, (0.60, 0.38, 0.20), (0.68, 0.44, 0.22))
    picture = _mix(wall, wood * tone[..., None].astype(np.float32), frame.below(horizon))
    edge = frame.below(horizon) * (1 - frame.below(horizon + 2))
    return picture * (1 - 0.4 * edge)[..., None]


def _floor(frame: Frame, rng: Rng, horizon: float) -> np.ndarray:
    wall = _fade(frame, 0, horizon, (0.84, 0.85, 0.87), (0.92, 0.92, 0.93))
    u, v = _plane(frame, horizon)
    u, v = (u + rng.uniform(0, 40)) / 26, (v + rng.uniform(0, 40)) / 26
    tile = (np.floor(u) + np.floor(v)) % 2 * np.clip((frame.y - horizon) / 24, 0, 1)
    ground = _fade(frame, horizon, REFERENCE, (0.22, 0.40, 0.74), (0.18, 0.36, 0.74))
    return _mix(wall, ground * (1 - 0.18 * tile)[..., None], frame.below(horizon))


def _night(frame: Frame, rng: Rng, horizon: float) -> np.ndarray:
    sky = _fade(frame, 0, horizon, (0.02, 0.03, 0.12), (0.09, 0.10, 0.27))
    ground = _fade(frame, horizon, REFERENCE, (0.07, 0.09, 0.17), (0.10, 0.12, 0.20))
    ground = ground * (1 + 0.14 * _ground(frame, rng, "mid", horizon))[..., None]
    picture = _mix(np.repeat(sky, frame.pixels, 1), ground, frame.below(horizon))
    for x, y, glow in rng.uniform((0, 0, 0.6), (REFERENCE, max(horizon - 2, 1), 1), (26, 3)):
        _spot(picture, frame, (x, y), 0.9, (glow, glow, glow))
    moon = rng.uniform(14, REFERENCE - 14), rng.uniform(10, 20)
    _spot(picture, frame, moon, rng.uniform(6, 9), (0.96, 0.95, 0.82))
    return picture


def _cactus(picture: np.ndarray, frame: Frame, x: float, foot: float, tall: float) -> None:
    green = np.array((0.22, 0.42, 0.18), np.float32)
    bars = (
        (x - 1.8, foot - tall, x + 1.8, foot),
        (x - 6.5, foot - tall + 6, x + 6.5, foot - tall + 8.6),
        (x - 6.5, foot - tall + 2, x - 4, foot - tall + 8),
        (x + 4, foot - tall + 1, x + 6.5, foot - tall + 8),
    )
    for left, top, right, bottom in bars:
        inside = np.minimum(
            np.minimum(frame.x - left, right - frame.x), np.minimum(frame.y - top, bottom - frame.y)
        )
        amount = np.clip(inside * frame.scale + 0.5, 0, 1)
        picture[:] = _mix(picture, green, amount)


def _desert(frame: Frame, rng: Rng, horizon: float) -> np.ndarray:
    sky = _fade(frame, 0, horizon, (0.98, 0.78, 0.45), (0.99, 0.90, 0.66))
    wave = frame.x / rng.uniform(14, 24) + rng.uniform(0, 6)
    hills = frame.below(horizon - 9 - 6 * np.sin(wave))
    picture = _mix(sky, np.array((0.80, 0.46, 0.22), np.float32), hills)
    ground = _fade(frame, horizon, REFERENCE, (0.87, 0.53, 0.24), (0.92, 0.60, 0.29))
    ripple = np.sin(_ground(frame, rng, "low", horizon, 0.5) * 3 + (frame.y - horizon) * 0.35)
    picture = _mix(picture, ground * (1 + 0.07 * ripple)[..., None], frame.below(horizon))
    x, tall, shown = rng.uniform(6, REFERENCE - 6), rng.uniform(15, 24), rng.random() < 0.6
    if shown:
        _cactus(picture, frame, x, horizon + 3, tall)
    return picture


def _water(frame: Frame, rng: Rng, horizon: float) -> np.ndarray:
    deep = _fade(frame, 0, horizon, (0.16, 0.66, 0.74), (0.05, 0.46, 0.60))
    floor = _fade(frame, horizon, REFERENCE, (0.07, 0.44, 0.52), (0.16, 0.52, 0.50))
    pebbles = 0.18 * np.abs(_ground(frame, rng, "mid", horizon)) - 0.12
    picture = _mix(deep, floor * (1 + pebbles)[..., None], frame.below(horizon))
    ray = np.clip(np.sin((frame.x + 0.5 * frame.y) / rng.uniform(7, 12) + rng.uniform(0, 6)), 0, 1)
    picture = picture + (0.10 * ray * np.clip(1 - frame.y / 90, 0, 1))[..., None]
    for x, y, radius in rng.uniform((0, 0, 2.0), (REFERENCE, REFERENCE, 4.5), (6, 3)):
        rows, columns = frame.window(x - 6, y - 6, x + 6, y + 6)
        rim = np.abs(np.hypot(frame.x[:, columns] - x, frame.y[rows] - y) - radius)
        picture[rows, columns] += (np.clip(1.3 - rim, 0, 1) * 0.4)[..., None]
    return picture


_PAINTERS: dict[str, Callable[[Frame, Rng, float], np.ndarray]] = {
    "grass": _grass,
    "beach": _beach,
    "snow": _snow,
    "table": _table,
    "floor": _floor,
    "night": _night,
    "desert": _desert,
    "water": _water,
}
SETTINGS = tuple(_PAINTERS)


def paint(name: str, frame: Frame, rng: Rng) -> tuple[np.ndarray, float]:
    """Paints a setting; returns the picture, colors from 0 to 1, and the horizon's height."""
    horizon = float(rng.uniform(34, 56))
    exposure = np.float32(rng.uniform(0.92, 1.06))
    picture = _PAINTERS[name](frame, rng, horizon)
    return np.clip(picture * exposure, 0, 1).astype(np.float32), horizon


def light(name: str) -> Light:
    """The light of a setting."""
    return LIGHTS.get(name, Light())
