"""What rows' pseudo-labels were worth while they trained, as curves."""

from __future__ import annotations

import io
import statistics
from pathlib import Path
from typing import Any

from fastuda.files.disk import write_atomic
from fastuda.study.chart import wrapped
from fastuda.study.report import Report

_SHOWN = (("precision_above_tau", "right among the pixels above τ, percent"), ("share_kept", "pixels above τ, percent"))

_LINES = ("-", "--", ":")
"""Where there are more rows than colours."""


def has_pseudo_labels(report: Report) -> bool:
    """Whether any row's were looked at."""
    return any(row.get("pseudo_labels") is not None for row in report["rows"])


def pseudo_label_chart(path: Path, report: Report) -> None:
    """Write a PNG: overall precision above τ and the share above it by iteration, a colour and a line style a row.

    Thin lines are seeds, the thick one is their mean at the iterations that all of them have.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, len(_SHOWN), sharex=True)
    rows = [row for row in report["rows"] if row.get("pseudo_labels") is not None]
    for own, (key, label) in zip(axes, _SHOWN, strict=True):
        for number, row in enumerate(rows):
            _draw(own, [cell["pseudo_labels"] for cell in row["cells"] if cell.get("pseudo_labels")], key,
                  f"C{number % 10}", _LINES[number // 10 % len(_LINES)], wrapped(row["name"], 30))  # fmt: skip
        if not any(line.get_xdata().size for line in own.lines):
            own.text(0.5, 0.5, "no pixel above τ", transform=own.transAxes, ha="center", fontsize=9)
        own.set_xlabel("adaptation iterations", fontsize=9)
        own.set_ylabel(label, fontsize=9)
        own.set_ylim(-2, 102)
        own.xaxis.get_major_locator().set_params(integer=True)
        own.grid(color="#dddddd", linewidth=0.6)
        own.spines[["top", "right"]].set_visible(False)
    axes[-1].legend(fontsize=8, handlelength=4, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(f"pseudo-labels on the evaluation images, {wrapped(report['base'], 80)}", fontsize=11)
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_atomic(path, content.getvalue())


def _draw(axes: Any, histories: list[list[dict[str, Any]]], key: str, colour: str, style: str, name: str) -> None:
    curves = [{one["iteration"]: one[key] for one in history if one[key] is not None} for history in histories]
    for curve in curves:
        axes.plot(list(curve), list(curve.values()), color=colour, linestyle=style, linewidth=0.7, alpha=0.5)
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    means = [statistics.fmean(curve[iteration] for curve in curves) for iteration in common]
    axes.plot(common, means, color=colour, linestyle=style, linewidth=2, marker="o", markersize=4, label=name)
