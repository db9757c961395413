"""The long harness of faults as a table: what was tried, how often, and what did not hold."""

from __future__ import annotations

from typing import Any

from fastuda_bench.markdown import table


def faults(parts: dict[str, dict[str, Any]]) -> str:
    """A row for every part: tries, kinds of fault among them, failures, the largest of what was measured."""
    rows = [
        (
            part["title"],
            f"{part['tries']:,}",
            str(len(part["kinds"])),
            str(part["failed"]),
            ", ".join(f"{name} {_number(value)}" for name, value in part["largest"].items()) or "–",
        )
        for part in parts.values()
    ]
    dates = sorted({part["date"] for part in parts.values()})
    versions = sorted({f"torch {part['versions']['torch']}" for part in parts.values()})
    cores = sorted({f"{part['cores']} cores of an {part['cpu']}" for part in parts.values()})
    commits = sorted({f"`{part['commit']}`" for part in parts.values()})
    note = (
        f"On {' and '.join(cores)}, {', '.join(versions)}, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, "
        f"commit {', '.join(commits)}; which kinds, and how often each: "
        "[`bench/results/faults.json`](../bench/results/faults.json).\n"
    )
    return (
        table(("what was done, and what has to come of it", "tries", "kinds", "failed", "at most"), rows) + "\n" + note
    )


def _number(value: float) -> str:
    """Counts whole, measures to four digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
