"""What confidence is worth: calibration, and the wrong pixels that a threshold lets through (paper figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastuda.classes import IGNORE_INDEX
from fastuda.metrics.iou import plain
from fastuda_kernels.checks import check_tensor

THRESHOLDS = (*(i / 20 for i in range(20)), 0.97, 0.99)
"""Where results list the curve."""

_NUM_BINS = 15
_RESOLUTION = 3000
# Confidence is added up in integers, so that no order of images, pixels or threads changes a sum. Steps of
# 2^-24 hold every float32 from 0.5 on exactly, and 2^39 pixels do not overflow.
_STEPS = 2**24
# Softmaxes may exceed 1 by their rounding.
_LARGEST = 1 + 1e-4


@dataclass(frozen=True)
class Kept:
    """What one threshold keeps, the pixels more confident than it; percent, NaN without a value."""

    pixels: float
    """Share of the pixels that are kept."""
    errors: float
    """Share of the wrong pixels that are kept."""
    error_rate: float
    """Share of the kept pixels that are wrong."""


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """`Kept` at every threshold (paper figure 2); arrays float64 [T]."""

    thresholds: NDArray[np.float64]
    """Ascending from 0 to 1."""
    pixels: NDArray[np.float64]
    errors: NDArray[np.float64]
    error_rate: NDArray[np.float64]

    def at(self, tau: float) -> Kept:
        """What `tau` keeps, exactly; ValueError unless it is one of `thresholds` (to float32)."""
        edges = self.thresholds.astype(np.float32)
        index = int(np.searchsorted(edges, np.float32(tau)))
        if index == len(edges) or edges[index] != np.float32(tau):
            raise ValueError(f"threshold {tau} was not counted: name it when the meter is made")
        return Kept(float(self.pixels[index]), float(self.errors[index]), float(self.error_rate[index]))

    def to_json(self, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, list[float | None]]:
        """A list a quantity, in the order of `thresholds`; rounded to 1e-4, None where there is no value."""
        kept = [self.at(tau) for tau in thresholds]
        return {
            "pixels": [plain(one.pixels) for one in kept],
            "errors": [plain(one.errors) for one in kept],
            "error_rate": [plain(one.error_rate) for one in kept],
        }


@dataclass(frozen=True)
class ReliabilityBin:
    """The pixels of one of equally wide ranges of confidence; percent, NaN for an empty one."""

    share: float
    """Share of all pixels."""
    confidence: float
    """Their mean confidence."""
    accuracy: float
    """Share of them that are right."""


@dataclass(frozen=True)
class ConfidenceScores:
    """What one evaluation says of confidence; percentages, NaN without a value."""

    num_pixels: int
    """Counted pixels."""
    ece: float
    """Expected calibration error of the predicted class (Guo et al. 2017): mean gap of `reliability`."""
    reliability: tuple[ReliabilityBin, ...]
    """Bin i of n holds confidences in (i/n, (i + 1)/n]."""
    boundary_pixels: float
    """Share of the pixels that lie at boundaries."""
    boundary_errors: float
    """Share of the wrong pixels that lie at boundaries."""
    overall: ThresholdCurve
    """Over all pixels."""
    boundary: ThresholdCurve
    """Over the pixels at boundaries alone."""

    def to_json(self, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, Any]:
        """Plain numbers, rounded to 1e-4; None where there is no value. The curves are read at `thresholds`."""
        return {
            "num_pixels": self.num_pixels,
            "ece": plain(self.ece),
            "reliability": {
                "share": [plain(one.share) for one in self.reliability],
                "confidence": [plain(one.confidence) for one in self.reliability],
                "accuracy": [plain(one.accuracy) for one in self.reliability],
            },
            "boundary_pixels": plain(self.boundary_pixels),
            "boundary_errors": plain(self.boundary_errors),
            "thresholds": list(thresholds),
            "overall": self.overall.to_json(thresholds),
            "boundary": self.boundary.to_json(thresholds),
        }


class ConfidenceMeter:
    """Adds images up to `ConfidenceScores`, in memory that does not grow with them and without waiting for the device.

    A pixel is kept by a threshold as pseudo-labels are: when its confidence, float32, is greater than
    the threshold rounded to float32. So every cell of the histogram holds its upper edge.
    """

    def __init__(self, num_classes: int, device: torch.device, thresholds: Sequence[float] = ()) -> None:
        """The curve has the multiples of 1/3000 and `thresholds`.

        Raises ValueError for a threshold outside [0, 1], or `num_classes` outside 1 to 255.
        """
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes must be from 1 to {IGNORE_INDEX}, got {num_classes}")
        if not all(0 <= tau <= 1 for tau in thresholds):
            raise ValueError(f"thresholds must be from 0 to 1, got {list(thresholds)}")
        every = np.concatenate([np.arange(_RESOLUTION + 1) / _RESOLUTION, np.array(thresholds, np.float64)])
        edges, first = np.unique(every.astype(np.float32), return_index=True)
        self._num_classes = num_classes
        self._thresholds: NDArray[np.float64] = every[first]
        self._edges = torch.from_numpy(edges).to(device)
        # By boundary, right and cell; the last cell is no confidence at all, the last entry an ignored pixel.
        self._num_cells = len(edges) + 1
        self._counts = torch.zeros(4 * self._num_cells + 1, dtype=torch.int64, device=device)
        self._sums = torch.zeros_like(self._counts)

    def add(self, prediction: Tensor, confidence: Tensor, label: Tensor, boundary: Tensor) -> None:
        """Count one image, tensors on the meter's device.

        Args:
            prediction: train ids uint8 [H, W].
            confidence: float32 [H, W], the probability of the prediction.
            label: train ids uint8 [H, W]; values from `num_classes` on are ignored.
            boundary: bool [H, W], the pixels called boundary (`boundary.boundary_band`).

        Raises:
            ValueError, TypeError: shapes, types or devices that do not fit, naming what came.
        """
        device, shape = self._counts.device, prediction.shape
        check_tensor("prediction", prediction, shape=(None, None), dtypes=(torch.uint8,), device=device)
        check_tensor("confidence", confidence, shape=shape, dtypes=(torch.float32,), device=device)
        check_tensor("label", label, shape=shape, dtypes=(torch.uint8,), device=device)
        check_tensor("boundary", boundary, shape=shape, dtypes=(torch.bool,), device=device)
        valid = (confidence >= 0) & (confidence <= _LARGEST)
        confidence = confidence.clamp(max=1).where(valid, 0)
        cell = torch.bucketize(confidence, self._edges).where(valid, self._num_cells - 1)
        cell += self._num_cells * (2 * boundary.long() + (prediction == label))
        cell = cell.where(label < self._num_classes, len(self._counts) - 1).flatten()
        self._counts.scatter_add_(0, cell, self._counts.new_ones(1).expand_as(cell))
        self._sums.scatter_add_(0, cell, (confidence * _STEPS).round().long().flatten())

    @property
    def sums(self) -> list[Tensor]:
        """All that was counted, int64: meters of parts of a split may be added, in whatever order."""
        return [self._counts, self._sums]

    def result(self) -> ConfidenceScores:
        """Scores so far; waits for the device. Raises ValueError when a confidence was NaN or outside [0, 1]."""
        counts, sums = (totals[:-1].view(2, 2, self._num_cells).cpu().numpy() for totals in (self._counts, self._sums))
        if counts[..., -1].any():
            raise ValueError(f"{counts[..., -1].sum()} confidences are NaN or outside [0, 1]")
        counts, sums = counts[..., :-1], sums[..., :-1]
        ece, reliability = self._calibration(counts.sum(0), sums.sum((0, 1)))
        total, wrong = counts.sum((1, 2)), counts[:, 0].sum(1)
        return ConfidenceScores(
            num_pixels=int(total.sum()),
            ece=ece,
            reliability=reliability,
            boundary_pixels=float(_percent(total[1], total.sum())),
            boundary_errors=float(_percent(wrong[1], wrong.sum())),
            overall=self._curve(counts.sum(0)),
            boundary=self._curve(counts[1]),
        )

    def _curve(self, counts: NDArray[np.int64]) -> ThresholdCurve:
        """`counts` int64 [2, cells] of wrong and right pixels."""
        kept = counts.sum(1, keepdims=True) - counts.cumsum(1)
        pixels, wrong = kept.sum(0), kept[0]
        return ThresholdCurve(
            thresholds=self._thresholds,
            pixels=_percent(pixels, counts.sum()),
            errors=_percent(wrong, counts[0].sum()),
            error_rate=_percent(wrong, pixels),
        )

    def _calibration(
        self, counts: NDArray[np.int64], sums: NDArray[np.int64]
    ) -> tuple[float, tuple[ReliabilityBin, ...]]:
        """`counts` int64 [2, cells] of wrong and right pixels, `sums` int64 [cells] of confidence in steps."""
        bin_edges = (np.arange(_NUM_BINS + 1) / _NUM_BINS).astype(np.float32)
        # A cell belongs to its upper edge's bin; the first holds confidence 0 alone.
        bins = np.searchsorted(bin_edges, self._thresholds.astype(np.float32)).clip(min=1) - 1
        total, right, steps = (_add_up(values, bins) for values in (counts.sum(0), counts[1], sums))
        confidence = steps / _STEPS
        columns = (_percent(total, total.sum()), _percent(confidence, total), _percent(right, total))
        reliability = tuple(ReliabilityBin(*row) for row in zip(*(one.tolist() for one in columns), strict=True))
        return float(_percent(np.abs(right - confidence).sum(), total.sum())), reliability


def _add_up(values: NDArray[np.int64], bins: NDArray[np.intp]) -> NDArray[np.int64]:
    totals = np.zeros(_NUM_BINS, np.int64)
    np.add.at(totals, bins, values)
    return totals


def _percent(part: Any, whole: Any) -> NDArray[np.float64]:
    """100 · part / whole, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    share: NDArray[np.float64] = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return 100 * share
