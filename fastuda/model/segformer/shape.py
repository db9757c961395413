"""Widths and depths of the Mix Transformers (SegFormer, Xie et al., NeurIPS '21, table 6); no torch."""

from __future__ import annotations

from typing import Literal, NamedTuple

Variant = Literal["mit-b0", "mit-b1", "mit-b2", "mit-b3", "mit-b4", "mit-b5"]


class Shape(NamedTuple):
    """Of the four stages each."""

    widths: tuple[int, int, int, int]
    """Features."""
    depths: tuple[int, int, int, int]
    """Blocks."""


_WIDE = (64, 128, 320, 512)
SHAPES: dict[Variant, Shape] = {
    "mit-b0": Shape((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit-b1": Shape(_WIDE, (2, 2, 2, 2)),
    "mit-b2": Shape(_WIDE, (3, 4, 6, 3)),
    "mit-b3": Shape(_WIDE, (3, 4, 18, 3)),
    "mit-b4": Shape(_WIDE, (3, 8, 27, 3)),
    "mit-b5": Shape(_WIDE, (3, 6, 40, 3)),
}
HEADS = (1, 2, 5, 8)
"""Of the attention."""
REDUCTIONS = (8, 4, 2, 1)
"""Positions along a side that share a key and a value."""
OUTPUT_STRIDE = 4
