"""Scores from a confusion matrix: IoU a class, their mean, accuracies (protocol rows 23, 24)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """What one evaluation says; percentages, NaN for a class that neither label nor prediction has."""

    protocol: str
    """`full` or `released` (protocol row 23)."""
    iou: dict[str, float]
    """Percent by class name."""
    miou: float
    """Mean of `iou` over the classes that occur, percent."""
    pixel_accuracy: float
    """Share of counted pixels that are right, percent."""
    mean_accuracy: float
    """Mean over classes of the share of their pixels that are right, percent."""
    absent: tuple[str, ...]
    """Classes without one labelled pixel: their IoU is 0 where the model predicts them, NaN where it does not."""
    subsets: dict[str, float]
    """Mean IoU over named subsets of the classes, percent (SYNTHIA's 13, say)."""

    @classmethod
    def of(
        cls,
        confusion: NDArray[np.int64],
        names: tuple[str, ...],
        protocol: str,
        subsets: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Scores:
        """Scores of confusion int64 [C, C] (row: label, column: prediction).

        Raises ValueError when the matrix does not have one row and column a name.
        """
        if confusion.shape != (len(names), len(names)):
            raise ValueError(f"confusion has shape {list(confusion.shape)}, but there are {len(names)} class names")
        right = np.diag(confusion).astype(np.float64)
        labelled, predicted = confusion.sum(1), confusion.sum(0)
        union = labelled + predicted - right
        iou = 100 * np.divide(right, union, out=np.full_like(right, np.nan), where=union > 0)
        accuracy = 100 * np.divide(right, labelled, out=np.full_like(right, np.nan), where=labelled > 0)
        by_name = dict(zip(names, iou.tolist(), strict=True))
        return cls(
            protocol=protocol,
            iou=by_name,
            miou=mean_of_known(iou),
            pixel_accuracy=100 * float(right.sum()) / max(int(confusion.sum()), 1),
            mean_accuracy=mean_of_known(accuracy),
            absent=tuple(name for name, count in zip(names, labelled, strict=True) if not count),
            subsets={
                subset: mean_of_known(np.array([by_name[name] for name in members]))
                for subset, members in (subsets or {}).items()
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, rounded to 1e-4; None where there is no value."""

        return {
            "protocol": self.protocol,
            "miou": plain(self.miou),
            "iou": {name: plain(value) for name, value in self.iou.items()},
            "pixel_accuracy": plain(self.pixel_accuracy),
            "mean_accuracy": plain(self.mean_accuracy),
            "absent": list(self.absent),
            "subsets": {name: plain(value) for name, value in self.subsets.items()},
        }


def plain(value: float) -> float | None:
    """A percentage for JSON: rounded to 1e-4, None for NaN."""
    return None if np.isnan(value) else round(value, 4)


def mean_of_known(values: NDArray[np.float64]) -> float:
    """Mean of float64 values that are not NaN; NaN when there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
