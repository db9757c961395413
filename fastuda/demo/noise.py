"""Periodic noise tiles that every texture is cut from."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

TILE = 512
"""Side of a tile in pixels; a tile wraps round without a seam."""


@cache
def tile(kind: str) -> NDArray[np.float32]:
    """Noise [TILE, TILE] float32, mean 0, variance 1: `grain` (white), `blotch` (leaf-sized), `cloud` (1/f).

    And what is laid or woven: `courses` (broken horizontal bands), `slats` (upright ones), `cobbles` (coarse, regular).
    """
    white = np.random.default_rng(np.random.SeedSequence(20)).standard_normal((TILE, TILE))
    if kind != "grain":
        rows, columns = np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE)[None]
        frequency = np.hypot(rows, columns)
        frequency[0, 0] = np.inf
        if kind == "cloud":
            gain = np.where(frequency < 0.2, (1 / frequency) ** 1.6, 0)
        elif kind == "courses":
            gain = np.exp(-(((np.abs(rows) - 0.14) / 0.015) ** 2) - (columns / 0.03) ** 2)
        elif kind == "slats":
            gain = np.exp(-(((np.abs(columns) - 0.12) / 0.015) ** 2) - (rows / 0.02) ** 2)
        elif kind == "cobbles":
            gain = np.exp(-(((frequency - 0.16) / 0.015) ** 2))
        else:
            gain = np.exp(-(((frequency - 0.1) / 0.06) ** 2))
        white = np.fft.ifft2(np.fft.fft2(white) * gain).real
    scaled: NDArray[np.float32] = ((white - white.mean()) / white.std()).astype(np.float32)
    return scaled


def window(kind: str, rng: np.random.Generator, height: int, width: int, stretch: float = 1.0) -> NDArray[np.float32]:
    """A random [height, width] float32 window of a tile; `stretch` > 1 widens its features sideways."""
    top, left = rng.integers(0, TILE, 2)
    rows = (np.arange(height) + top) % TILE
    columns = ((np.arange(width) / stretch).astype(np.intp) + left) % TILE
    cut: NDArray[np.float32] = tile(kind)[np.ix_(rows, columns)]
    return cut
