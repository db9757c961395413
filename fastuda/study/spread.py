"""The same scores from several seeds: mean and standard deviation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Spread = dict[str, Any]
"""`n`, `mean` and `std` (sample standard deviation, None of fewer than two) of a number; percent here."""


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and sample standard deviation of the values that there are; None for a mean of none."""
    known = [value for value in values if value is not None]
    return {
        "n": len(known),
        "mean": round(statistics.fmean(known), 4) if known else None,
        "std": round(statistics.stdev(known), 4) if len(known) > 1 else None,
    }


def spread_of_records(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Spread of mIoU, of every class and of every subset over records of `Scores.to_json`."""
    return {
        "miou": spread([record["miou"] for record in records]),
        "iou": {name: spread([record["iou"][name] for record in records]) for name in records[0]["iou"]},
        "subsets": {name: spread([record["subsets"][name] for record in records]) for name in records[0]["subsets"]},
    }


def plus_minus(value: Spread, *, signed: bool = False) -> str:
    """`57.3 ± 0.4`, `57.3` of one value, `–` of none."""
    if value["mean"] is None:
        return "–"
    mean = f"{value['mean']:+.1f}" if signed else f"{value['mean']:.1f}"
    return mean if value["std"] is None else f"{mean} ± {value['std']:.1f}"
