"""The model of several GPUs, and its check, as tables of the project's pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fastuda_bench.markdown import table
from fastuda_bench.scaling_table import LINES, part


def _figures(name: str, rows: list[dict[str, Any]]) -> str:
    """A part of the results, and what it is of."""
    of_part = part(rows, name)
    if not of_part:
        return "Not measured yet: `fastuda bench scaling --measure --json bench/results/scaling.json`.\n"
    head, lines = LINES[name](of_part)
    first = of_part[0]
    made = f"commit `{first['commit']}`, torch {first['versions']['torch']}, {first['date']}.\n"
    if name == "all_reduce":
        cores = f"{first['cores']} cores of an {first['cpu']}"
        note = f"Measured: {first['ms']['repeats']} windows over Gloo on {cores}, "
        note += f"load average {first['load_average']}, {made}{_found(of_part)}"
    else:
        note = f"Model, not measured: `{first['recipe']}`, batch {first['batch_size']} a rank; {made}"
    return table(head, lines) + "\n" + note


def _found(rows: list[dict[str, Any]]) -> str:
    """What the lines say of this machine, and how far off they are where they predict."""
    said = {row["ranks"]: f"{row['alpha_us']:.0f} µs a step and {row['gb_per_second']:.2f} GB/s" for row in rows}
    of_ranks = "; ".join(f"{ranks} ranks: {line}" for ranks, line in said.items())
    worst = max(abs(row["model_error"]) for row in rows if not row["fitted"])
    return f"{of_ranks}. What was predicted is wrong by {100 * worst:.0f} % at most.\n"


scaling_exchange: Callable[[Any], str] = partial(_figures, "exchange")
scaling_efficiency: Callable[[Any], str] = partial(_figures, "efficiency")
scaling_feeding: Callable[[Any], str] = partial(_figures, "feeding")
scaling_check: Callable[[Any], str] = partial(_figures, "all_reduce")
