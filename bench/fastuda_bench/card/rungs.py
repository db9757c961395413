"""The ladder of a card: measured a rung a process, put together and compared once there is a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastuda.errors import FastudaError
from fastuda_bench.agreement import compared
from fastuda_bench.compare import read_rows
from fastuda_bench.results import Row, sound, write_rows


def rung_file(folder: Path, rung: str) -> Path:
    """Where a rung's own process leaves its row."""
    return folder / "rungs" / f"{rung}.json"


def put_together(folder: Path, names: Sequence[str]) -> list[Row]:
    """Write step.json of the rungs that have a row, in the order of `names`, and return its rows."""
    rows = compared([row for name in names for row in rows_of(rung_file(folder, name))])
    if rows:
        write_rows(folder / "step.json", rows)
    return rows


def counting_rungs(folder: Path) -> list[Row]:
    """Rows of step.json whose speed counts."""
    return sound(rows_of(folder / "step.json"))


def rows_of(path: Path) -> list[Row]:
    """Rows of a results file, none if it is missing or no such file."""
    try:
        return read_rows(path)
    except FastudaError:
        return []
