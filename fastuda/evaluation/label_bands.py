"""Labels and confidence at an image's own size from low-resolution logits, a band of rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastuda.model.segmenter import Outputs

_BUDGET = {"cpu": 16 << 20, "cuda": 64 << 20}
"""Bytes of float32 logits at full size that are there at a time, by device."""
_VECTOR_LANES = 8
"""Channels that torch's CPU kernel sums at once; 16 with AVX512, and then what is left over in eights."""

# The order in which torch's kernels sum what they weigh: two neighbours; a pixel's four (upper left, upper right, lower
# left, lower right) in whole vectors of channels; and in the channels that are left over.
_PAIR, _CORNERS, _CORNERS_LEFT_OVER = (1, 0), (2, 3, 1, 0), (1, 0, 2, 3)


class Answer(NamedTuple):
    """What a model says of rows of an image."""

    label: NDArray[np.uint8]
    """Train ids [h, W]."""
    confidence: NDArray[np.float32] | None
    """The largest probability of each pixel [h, W]; None unless asked for."""


def label_at(outputs: Outputs, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Train ids uint8 [H, W] at `size` (height, width): all of `label_bands`."""
    return np.concatenate(list(label_bands(outputs, size)))


def answer_at(outputs: Outputs, size: tuple[int, int], *, confidence: bool = False) -> Answer:
    """The answer [H, W] at `size` (height, width): all of `answer_bands`."""
    return joined(answer_bands(outputs, size, confidence=confidence))


def joined(bands: Iterable[Answer]) -> Answer:
    """Bands of an image, downwards, as one."""
    labels, confidences = zip(*bands, strict=True)
    return Answer(np.concatenate(labels), None if confidences[0] is None else np.concatenate(confidences))


def label_bands(outputs: Outputs, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Train ids uint8 [h, W] of `answer_bands`."""
    return (band.label for band in answer_bands(outputs, size))


@torch.no_grad()
def answer_bands(outputs: Outputs, size: tuple[int, int], *, confidence: bool = False) -> Iterator[Answer]:
    """Answers [h, W], downwards, for an image of `size` (height, width) from main-head logits [1, C, H', W'].

    Interpolated as `F.interpolate` does with corners aligned as the outputs say, and chosen as `argmax_confusion`
    scores them, so that files hold what was counted: to the bit on an x86 CPU, within rounding on other devices. No
    tensor as large as the image is made.
    """
    logits, align_corners = outputs.logits.float(), outputs.align_corners
    device = logits.device
    channels, height = logits.shape[1:3]
    columns = _Columns(logits, size, align_corners)
    above, below, *weights = _neighbours(height, size[0], align_corners, device)
    starts = [0, *(torch.nonzero(above.diff()).flatten() + 1).tolist(), size[0]]
    rows_at_once = max(1, _BUDGET.get(device.type, _BUDGET["cpu"]) // (4 * channels * size[1]))
    # Written again and again: fresh memory costs more than the sums.
    planes = torch.empty(channels, rows_at_once, size[1], device=device)
    pixels = torch.empty(rows_at_once, size[1], channels, device=device)
    # Rows between the same two rows of logits share all that depends on columns.
    for start, stop in pairwise(starts):
        pair = columns.of_rows(int(above[start]), int(below[start]))
        for top in range(start, stop, rows_at_once):
            end = min(stop, top + rows_at_once)
            full, beside = planes[:, : end - top], pixels[: end - top]
            columns.between(pair, [weight[top:end, None] for weight in weights], full)
            # With the channels side by side arg-max is several times faster on a CPU.
            beside.copy_(full.permute(1, 2, 0))
            label = beside.argmax(2).to(torch.uint8).cpu().numpy()
            yield Answer(label, beside.softmax(2).amax(2).cpu().numpy() if confidence else None)


class _Columns:
    """Interpolation along columns, in the order of sums that torch's kernel for such logits has."""

    def __init__(self, logits: Tensor, size: tuple[int, int], align_corners: bool) -> None:
        self._by_corners = _sums_corners(logits, size)
        self._logits = logits[0].contiguous()
        self._left, self._right, *self._weights = _neighbours(logits.shape[3], size[1], align_corners, logits.device)
        channels = logits.shape[1]
        self._whole = channels - channels % _VECTOR_LANES

    def of_rows(self, above: int, below: int) -> list[Tensor]:
        """What output rows between these two rows of logits have in common, each [C, 1, W]."""
        corners = [
            self._logits[:, row, columns][:, None] for row in (above, below) for columns in (self._left, self._right)
        ]
        if self._by_corners:
            return corners
        return [_weighted(corners[i : i + 2], self._weights, _PAIR) for i in (0, 2)]

    def between(self, common: list[Tensor], weights: list[Tensor], out: Tensor) -> None:
        """Outputs of output rows into `out` [C, n, W], by the weights [n, 1] of the rows above and below."""
        if not self._by_corners:
            _weighted(common, weights, _PAIR, out)
            return
        products = [row * column for row in weights for column in self._weights]
        whole, rest = slice(None, self._whole), slice(self._whole, None)
        _weighted([corner[whole] for corner in common], products, _CORNERS, out[whole])
        _weighted([corner[rest] for corner in common], products, _CORNERS_LEFT_OVER, out[rest])


def _weighted(
    values: Sequence[Tensor], weights: Sequence[Tensor], order: Sequence[int], out: Tensor | None = None
) -> Tensor:
    """Σ value · weight in that order, each product but the first unrounded: what compilers make of torch's kernels."""
    total = torch.mul(values[order[0]], weights[order[0]], out=out)
    for i in order[1:]:
        total.addcmul_(values[i], weights[i])
    return total


def _neighbours(
    num_in: int, num_out: int, align_corners: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each output position, the input positions before and after it, and their float32 weights; all [num_out]."""
    if align_corners:
        step = torch.tensor(num_in - 1, dtype=torch.float32) / max(num_out - 1, 1)
        place = torch.arange(num_out, dtype=torch.float32) * (step if num_out > 1 else 0)
    else:
        step = torch.tensor(num_in, dtype=torch.float32) / num_out
        centre = torch.arange(num_out, dtype=torch.float32) + 0.5
        place = torch.full((num_out,), -0.5).addcmul_(centre, step).clamp(min=0)  # the product unrounded, as above
    before = place.floor().long().clamp(max=num_in - 1)
    after = (before + 1).clamp(max=num_in - 1)
    weight = (place - before).clamp(0, 1)
    return before.to(device), after.to(device), (1 - weight).to(device), weight.to(device)


def _sums_corners(logits: Tensor, size: tuple[int, int]) -> bool:
    """Whether torch weighs the four corners of each pixel at once, rather than columns first and rows then."""
    if logits.device.type != "cpu":
        return False
    channels = logits.shape[1]
    return (
        (channels > 3 and logits.is_contiguous(memory_format=torch.channels_last))
        or sum(size) <= 128
        or (channels == 3 and torch.get_num_threads() == 1)
    )
