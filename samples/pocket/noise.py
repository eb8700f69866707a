"""Smooth, periodic noise for the painted settings, read at continuous coordinates."""

from functools import cache

import numpy as np

SIZE = 512
_SEED = 7
# Lowest and highest frequency in waves per table; one table entry is one reference unit.  The
# pocket autoencoder carries one cell per eight units, so finer grain than this would be lost.
_BANDS = {"fine": (14, 64), "mid": (4, 32), "low": (1, 9)}


@cache
def _table(band: str) -> np.ndarray:
    low, high = _BANDS[band]
    rng = np.random.default_rng([_SEED, tuple(_BANDS).index(band)])
    waves = np.fft.fftfreq(SIZE) * SIZE
    radius = np.hypot(waves[:, None], waves[None])
    spectrum = np.fft.fft2(rng.standard_normal((SIZE, SIZE)))
    field = np.fft.ifft2(spectrum * np.exp(-((radius / high) ** 2)) * (radius > low)).real
    return (field / field.std()).astype(np.float32)


def noise(band: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Noise of unit deviation at points (x, y), which may be broadcastable; bilinear, periodic."""
    table = _table(band).ravel()
    column, row = np.floor(x), np.floor(y)
    across, down = (x - column).astype(np.float32), (y - row).astype(np.float32)
    column, row = column.astype(np.int32), row.astype(np.int32)
    left, right = column % SIZE, (column + 1) % SIZE
    upper, lower = row % SIZE * SIZE, (row + 1) % SIZE * SIZE
    above = table[upper + left] * (1 - across) + table[upper + right] * across
    under = table[lower + left] * (1 - across) + table[lower + right] * across
    return above * (1 - down) + under * down


def offset(rng: np.random.Generator) -> tuple[float, float]:
    """A random place in a noise table."""
    x, y = rng.uniform(0, SIZE, 2)
    return float(x), float(y)
