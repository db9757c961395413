"""Pictures of results, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastuda_bench.results import Row, sound


def drawn(chart: Callable[[Path, list[Row]], None], path: Path, rows: list[Row], report: Callable[[str], None]) -> bool:
    """Draw `chart` of the rows that count to `path`; where it cannot be had, report why. Returns whether it was."""
    counting = sound(rows)
    if not counting:
        report(f"{path}: no picture, no row counts")
        return False
    try:
        chart(path, counting)
    except ImportError as error:
        report(f"{path}: no picture, matplotlib cannot be imported ({error})")
        return False
    return True
