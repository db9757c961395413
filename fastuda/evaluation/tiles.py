"""A model's answer for a photograph at its own resolution, from overlapping windows over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fastuda.data.reading.photograph import Photograph
from fastuda.evaluation.label_bands import Answer, answer_at
from fastuda.model.segmenter import Outputs

_LEAST_OVERLAP = 1 / 3
"""Of a window, along each side; what lies nearer to a window's border than half of it is another window's to answer."""


@dataclass(frozen=True)
class Span:
    """A window along one axis, and which part of it is its own to answer; ends are just outside."""

    start: int
    stop: int
    own_start: int
    own_stop: int


def spans(length: int, window: int) -> list[Span]:
    """Windows along `length` pixels, spread evenly from end to end; one of all the length if that is no longer.

    Every position is one span's own: the one whose window has it furthest from a border that is not the image's.
    """
    window = min(window, length)
    stride = max(1, round(window * (1 - _LEAST_OVERLAP)))
    steps = -(-(length - window) // stride)
    starts = [i * (length - window) // steps for i in range(steps + 1)] if steps else [0]
    cuts = [0, *((before + after + window) // 2 for before, after in pairwise(starts)), length]
    return [Span(start, start + window, *own) for start, own in zip(starts, pairwise(cuts), strict=True)]


def tiled_bands(
    photograph: Photograph,
    window: tuple[int, int],
    logits_of: Callable[[NDArray[np.uint8]], Outputs],
    *,
    confidence: bool = False,
) -> Iterator[Answer]:
    """Answers [h, W] for a photograph, downwards, a row of windows at a time.

    `logits_of` gives those [1, C, H', W'] of a window's pixels, uint8 [H, W, 3]; `window` is width and height.
    """
    width, height = photograph.size
    for down in spans(height, window[1]):
        shape = down.own_stop - down.own_start, width
        band = Answer(np.empty(shape, np.uint8), np.empty(shape, np.float32) if confidence else None)
        for across in spans(width, window[0]):
            pixels = np.asarray(photograph.piece((across.start, down.start, across.stop, down.stop)))
            found = answer_at(logits_of(pixels), pixels.shape[:2], confidence=confidence)
            own = (
                slice(down.own_start - down.start, down.own_stop - down.start),
                slice(across.own_start - across.start, across.own_stop - across.start),
            )
            for whole, part in zip(band, found, strict=True):
                if whole is not None and part is not None:
                    whole[:, across.own_start : across.own_stop] = part[own]
        yield band
