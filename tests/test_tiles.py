"""Windows over a photograph: every pixel from one of them, and from the one that sees the most around it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fastuda.data.reading.photograph import Photograph
from fastuda.evaluation.label_bands import joined
from fastuda.evaluation.tiles import spans, tiled_bands
from fastuda.model.segmenter import Outputs


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64, 640])
def test_windows_lie_within_overlap_and_own_every_position_once(window: int) -> None:
    for length in [*range(1, 200), 639, 640, 641, 1000, 2047]:
        found = spans(length, window)
        assert [found[0].start, found[0].own_start] == [0, 0]
        assert [found[-1].stop, found[-1].own_stop] == [length, length]
        for span in found:
            assert span.stop - span.start == min(window, length)
            assert span.start <= span.own_start < span.own_stop <= span.stop
        for one, other in pairwise(found):
            assert one.own_stop == other.own_start
            assert one.start < other.start
            assert one.stop - other.start >= window // 3 or window < 3


@pytest.mark.parametrize(("length", "window"), [(65, 64), (100, 64), (128, 64), (300, 64), (301, 63), (9, 3)])
def test_a_position_belongs_to_the_window_in_which_it_lies_furthest_from_the_border(length: int, window: int) -> None:
    found = spans(length, window)

    def depth(start: int, position: int) -> float:
        left = np.inf if start == 0 else position - start
        right = np.inf if start + window == length else start + window - 1 - position
        return min(left, right)

    for span in found:
        for position in range(span.own_start, span.own_stop):
            best = max(depth(other.start, position) for other in found if other.start <= position < other.stop)
            assert depth(span.start, position) >= best - 1  # between two pixels either is as good


def coloured(width: int, height: int) -> Photograph:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Photograph(Image.fromarray(pixels))


def reads_red(pixels: NDArray[np.uint8]) -> Outputs:
    """Outputs at the window's own size whose arg-max is red modulo 19."""
    red = torch.from_numpy(pixels[..., 0].copy()).long() % 19
    return Outputs(torch.nn.functional.one_hot(red, 19).permute(2, 0, 1)[None].float())


@pytest.mark.parametrize("size", [(48, 32), (49, 32), (500, 33), (31, 200), (200, 31), (1, 100), (300, 1), (111, 97)])
def test_every_pixel_gets_its_own_answer_at_its_own_place(size: tuple[int, int]) -> None:
    photograph = coloured(*size)
    seen: list[tuple[int, ...]] = []

    def answer(pixels: NDArray[np.uint8]) -> Outputs:
        seen.append(pixels.shape)
        return reads_red(pixels)

    label = joined(tiled_bands(photograph, (48, 32), answer)).label
    whole = np.asarray(photograph.piece((0, 0, *size)))
    assert np.array_equal(label, whole[..., 0] % 19)
    assert set(seen) == {(min(32, size[1]), min(48, size[0]), 3)}
    assert len(seen) == len(spans(size[0], 48)) * len(spans(size[1], 32))


def test_a_band_is_no_higher_than_a_window() -> None:
    assert max(len(band.label) for band in tiled_bands(coloured(100, 1000), (48, 32), reads_red)) <= 32
