"""Whether a rung computes what the plainest one computes: the losses of their first iterations, compared."""

from __future__ import annotations

from fastuda_bench.results import NOT_COMPARED, Row

BASELINE = "eager-fp32"
"""The rung whose losses are right by definition."""
COMPARED = 2
"""Iterations whose losses are compared: the second one's come of the first one's gradients and step."""
_TOLERANCE = {"float32": 2e-2, "bfloat16": 8e-2, "float16": 5e-2}
"""Relative difference of losses to the baseline's that a rung's precision explains."""


def compared(rows: list[Row]) -> list[Row]:
    """The rows, each with its `disagreement`: None, a sentence, or "not compared" where the baseline is missing.

    Rows that failed stay as they are. `losses` of a row holds a dict an iteration, `precision` names its type.
    """
    baseline = next((row for row in rows if row["rung"] == BASELINE and "losses" in row), None)
    return [row | {"disagreement": _disagreement(row, baseline)} if "losses" in row else row for row in rows]


def _disagreement(row: Row, baseline: Row | None) -> str | None:
    if baseline is None:
        return NOT_COMPARED
    tolerance = _TOLERANCE[row["precision"]]
    for i, (losses, wanted) in enumerate(zip(row["losses"], baseline["losses"], strict=True), start=1):
        for term, value in wanted.items():
            found = losses.get(term, float("nan"))
            # Written so that NaN does not pass, the baseline's own neither.
            if not abs(found - value) <= tolerance * max(abs(value), 0.1):
                return f"the loss {term} of iteration {i} is {found:.5f}, that of {BASELINE} {value:.5f}"
    return None
