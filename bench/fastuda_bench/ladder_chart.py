"""A picture of the ladder: milliseconds a rung, and where each stands under the device's roof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastuda_bench.results import Row

_BAR, _BEST, _ROOF = "#7aa6c2", "#2f7d4f", "#5b6570"


def ladder_chart(path: Path, rows: list[Row]) -> None:
    """Write a PNG: bars of milliseconds an iteration, and a roofline plot of the same rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.45 * len(rows) + 2.2), layout="constrained")
    bars, roof = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_bars(bars, rows)
    _draw_roof(roof, rows)
    first = rows[0]
    figure.suptitle(
        f"one iteration of {first['recipe']}, batch {first['batch_size']}, {first['gpu'] or first['cpu']}", fontsize=11
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _draw_bars(axes: Any, rows: list[Row]) -> None:
    values = [row["ms"]["median"] for row in rows]
    axes.barh(range(len(rows)), values, color=[_BEST if value == min(values) else _BAR for value in values])
    for i, value in enumerate(values):
        axes.annotate(f" {value:,.0f} ms" if value >= 100 else f" {value:.1f} ms", (value, i), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["rung"] for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("milliseconds an iteration")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_roof(axes: Any, rows: list[Row]) -> None:
    """Achieved FLOP/s over the eager step's FLOP a byte; the roof is what the device did in the same run."""
    limits = rows[0]["limits"]
    ridge = limits["flops"] / limits["bytes"]
    intensities = [row["work"]["flops"] / row["work"]["bytes"] for row in rows]
    left, right = min(*intensities, ridge) / 3, max(*intensities, ridge) * 3
    scale = 1e12
    axes.plot([left, ridge, right], [left * limits["bytes"] / scale, *[limits["flops"] / scale] * 2], color=_ROOF)
    best = min(row["ms"]["median"] for row in rows)
    for row, intensity in zip(rows, intensities, strict=True):
        height = row["flops_per_second"] / scale
        axes.plot(intensity, height, "o", color=_BEST if row["ms"]["median"] == best else _BAR)
    lowest, highest = (choose(rows, key=lambda row: row["flops_per_second"]) for choose in (min, max))
    for row in (lowest, highest):
        where = (row["work"]["flops"] / row["work"]["bytes"], row["flops_per_second"] / scale)
        axes.annotate(f"  {row['rung']}", where, va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP a byte, operations unfused")
    axes.set_ylabel("TFLOP/s")
    axes.spines[["top", "right"]].set_visible(False)
