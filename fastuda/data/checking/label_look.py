"""What one label's pixels look like: which values, and whether they fill areas or only speckle edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastuda.data.reading.labels import RawLabel, value_counts


@dataclass(frozen=True)
class LabelLook:
    """The values of one label and how they lie."""

    counts: dict[int, int]
    """Label value → pixels."""
    solid: frozenset[int]
    """Values that fill a square of 2×2 pixels somewhere: no value that interpolation or JPEG made up does for long."""
    speckled: float
    """Share of the pixels that are part of no square of 2×2 equal ones."""


def look_at(raw: RawLabel) -> LabelLook:
    """The look of raw ids [H, W], uint8 or uint16."""
    counts = value_counts(raw)
    present = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    if min(raw.shape) < 2:
        return LabelLook(present, frozenset(present), 0.0)
    corner = raw[:-1, :-1]
    square = (corner == raw[1:, :-1]) & (corner == raw[:-1, 1:]) & (corner == raw[1:, 1:])
    covered = np.zeros(raw.shape, np.bool_)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            covered[rows, columns] |= square
    return LabelLook(present, frozenset(np.unique(corner[square]).tolist()), 1 - float(covered.mean()))
