"""A way of drawing that the base's world does not have, for the style sample: stickers.

Toys keep their form and colors, but are flat, in two tones, cut out with a broad white rim and a
thin dark line around it, and throw no shadow.
"""

import numpy as np

from samples.pocket import settings, toys, trace
from samples.pocket.frame import REFERENCE, Frame, average_down, to_bytes
from samples.pocket.render import Render, Scene, usual_pose
from samples.pocket.toys import Toy

_RIM, _LINE = 3.4, 1.0  # widths in reference units
_INK = (0.10, 0.10, 0.16)
_SHADE = 0.62  # brightness of the side away from the light


def _grown(mask: np.ndarray, radius: float) -> np.ndarray:
    """A mask and everything within `radius` pixels of it."""
    size = mask.shape[0]
    steps = np.fft.fftfreq(size) * size
    disc = np.hypot(steps[:, None], steps[None]) <= radius
    # A convolution by FFT: how many pixels of the mask lie within the radius.
    count = np.fft.irfft2(np.fft.rfft2(mask) * np.fft.rfft2(disc.astype(np.float32)), mask.shape)
    return count > 0.5


def sticker_scene(rng: np.random.Generator, toy: Toy, where: str, size: int = REFERENCE) -> Render:
    """A named toy as a sticker in one of the usual settings."""
    frame = Frame(size)
    picture, horizon = settings.paint(where, frame, rng)
    pose = usual_pose(rng, toy, horizon)
    parts = toys.named_parts(toy)
    seen = trace.surface(parts, frame, pose)
    mask = np.zeros((frame.pixels, frame.pixels), np.float32)
    mask[seen.rows, seen.columns] = 1
    picture[_grown(mask, (_RIM + _LINE) * frame.scale)] = _INK
    rim = _grown(mask, _RIM * frame.scale)
    picture[rim] = 1
    lit = trace.lamp(pose) @ seen.normals > 0.35
    tone = np.where(lit, 1.0, _SHADE)[:, None]
    picture[seen.rows, seen.columns] = trace.albedo(parts, seen) * tone
    content = Scene(where, (toy,))
    return Render(to_bytes(average_down(picture)), content, average_down(rim.astype(np.float32)))
