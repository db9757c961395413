"""A picture of a table of times: one group of bars an operation, one bar an implementation."""

from __future__ import annotations

from pathlib import Path

from fastuda_bench.results import Row

_COLOURS = {
    "eager": "#b0b7bf",
    "compiled": "#7aa6c2",
    "reference": "#e0a458",
    "triton": "#2f7d4f",
    "unpadded": "#b58db6",
    "padded": "#2f7d4f",
}


def bar_chart(path: Path, rows: list[Row]) -> None:
    """Write a PNG of forward-and-backward milliseconds, on a logarithmic axis, with each bar's figure beside it."""
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys((row["operation"], row["size"]) for row in rows))
    figure = Figure(figsize=(9, 0.34 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    at, ticks, seen = 0.0, [], set()
    for label in labels:
        group = [row for row in rows if (row["operation"], row["size"]) == label]
        ticks.append(at + (len(group) - 1) / 2)
        for row in group:
            name, value = row["implementation"], row["both"]["median"]
            axes.barh(at, value, 0.8, color=_COLOURS[name], label=None if name in seen else name)
            axes.annotate(
                f" {value:,.0f} ms" if value >= 100 else f" {value:.3g} ms", (value, at), va="center", fontsize=8
            )
            seen.add(name)
            at += 1
        at += 0.7
    axes.set_yticks(ticks, [f"{operation}\n{size}" for operation, size in labels], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("milliseconds, forward and backward")
    axes.set_title(f"{rows[0]['gpu'] or rows[0]['cpu']}, torch {rows[0]['versions']['torch']}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
