"""What changed between two results files: every repeated measurement that both have, against its spread."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from fastuda.errors import FastudaError
from fastuda_bench.results import Row, sound

_SAME = (
    *("question", "recipe", "settings", "data", "batch_size", "views", "operation", "size", "implementation", "rung"),
    *("format", "pack", "threads"),
)
"""Fields that say what a row measures; rows are compared where all that they have are equal."""
_MACHINE = ("gpu", "cpu", "cores", "load_average", "power_limit_w", "python", "versions", "commit", "date")


@dataclass(frozen=True)
class Difference:
    """One measured number before and after."""

    what: str
    metric: str
    before: float
    after: float
    verdict: str
    """`beyond spread` if the medians lie farther apart than half of both spreads, `within spread`, or `one repeat`."""

    @property
    def percent(self) -> float:
        """Change in percent of the earlier number."""
        return 100 * (self.after / self.before - 1) if self.before else float("inf")


def differences(before: list[Row], after: list[Row]) -> list[Difference]:
    """Every number with repeats that two results share, in the later file's order; of rows that count in both."""
    earlier = {_key(row): row for row in sound(before)}
    found = []
    for row in sound(after):
        other = earlier.get(_key(row), {})
        for metric, value in row.items():
            was: Any = other.get(metric)
            if not (_is_measured(value) and _is_measured(was)):
                continue
            apart = abs(value["median"] - was["median"]) > (value["spread"] + was["spread"]) / 2
            verdict = "beyond spread" if apart else "within spread"
            if min(value["repeats"], was["repeats"]) < 2:
                verdict = "one repeat"
            found.append(Difference(_title(row), metric, was["median"], value["median"], verdict))
    return found


def compare(first: Path, second: Path) -> list[Difference]:
    """Print what changed from one results file to another, and return it.

    Raises FastudaError for a file that holds no rows, or when the two measure nothing in common.
    """
    before, after = read_rows(first), read_rows(second)
    found = differences(before, after)
    if not found:
        raise FastudaError(f"{first} and {second} have no measured row in common")
    console = Console()
    for field in _MACHINE:
        if before[0].get(field) != after[0].get(field):
            console.print(f"{field}: {before[0].get(field)} → {after[0].get(field)}", markup=False, highlight=False)
    table = Table(title=f"{first.name} → {second.name}", box=box.SIMPLE)
    for column in ("what", "metric", "before", "after", "change", "verdict"):
        table.add_column(column, justify="left" if column in ("what", "metric", "verdict") else "right")
    for one in found:
        values = (f"{one.before:,.4g}", f"{one.after:,.4g}", f"{one.percent:+.1f} %")
        table.add_row(one.what, one.metric, *values, one.verdict)
    console.print(table)
    doubtful = len(before) + len(after) - len(sound(before)) - len(sound(after))
    if doubtful:
        console.print(f"{doubtful} rows failed or disagree and are left out", style="red")
    missing = len({_key(row) for row in before} ^ {_key(row) for row in after})
    if missing:
        console.print(f"{missing} rows stand in one file alone", style="dim")
    return found


def read_rows(path: Path) -> list[Row]:
    """The rows of a results file; raises FastudaError when it is missing or holds anything else."""
    try:
        rows = json.loads(path.read_text())
    except OSError as error:
        raise FastudaError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise FastudaError(f"{path}: not JSON ({error})") from error
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) and "question" in row for row in rows)):
        raise FastudaError(f"{path}: holds no rows of `fastuda bench`")
    return rows


def fastest_ms(path: Path, recipe: str, batch_size: int) -> float:
    """Milliseconds of the fastest rung that counts, of a recipe in results of `bench step`; FastudaError for none."""
    wanted = {"question": "step", "recipe": recipe, "batch_size": batch_size}
    times = [row["ms"]["median"] for row in sound(read_rows(path)) if wanted.items() <= row.items()]
    if not times:
        raise FastudaError(f"{path}: holds no `bench step` of {recipe} at batch {batch_size}")
    return float(min(times))


def _key(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple((name, json.dumps(row[name])) for name in _SAME if name in row)


def _title(row: Row) -> str:
    named = ("recipe", "operation", "size", "implementation", "rung", "format", "pack", "threads")
    return " · ".join(str(row[name]) + (" threads" if name == "threads" else "") for name in named if name in row)


def _is_measured(value: Any) -> bool:
    return isinstance(value, dict) and {"median", "spread"} <= value.keys()
