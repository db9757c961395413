"""What rows scored, and what their pseudo-labels were worth, while they trained: curves by iteration."""

from __future__ import annotations

import io
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastuda.files.disk import write_atomic
from fastuda.study.chart import wrapped
from fastuda.study.report import Report

_LINES = ("-", "--", ":")
"""Where there are more rows than colours."""


@dataclass(frozen=True)
class _Panel:
    """One quantity over the adaptation's iterations."""

    key: str
    history: str
    """Of a cell: where its values stand, evaluation by evaluation."""
    label: str


_MIOU = _Panel("miou", "history", "mIoU, percent")
_PSEUDO_LABELS = (
    _Panel("precision_above_tau", "pseudo_labels", "right among the pixels above τ, percent"),
    _Panel("share_kept", "pseudo_labels", "pixels above τ, percent"),
)


def has_curves(report: Report) -> bool:
    """Whether any row was scored more than once."""
    return any(len(cell.get("history", ())) > 1 for row in report["rows"] for cell in row["cells"])


def curve_chart(path: Path, report: Report) -> None:
    """Write a PNG: mIoU by iteration and, where they were looked at, the pseudo-labels' precision and share above τ.

    A colour and a line style a row; thin lines are seeds, the thick one is their mean at the iterations that all of
    them have. Rows that were scored once are a mark.
    """
    from matplotlib.figure import Figure

    rows = [row for row in report["rows"] if any(cell.get("history") for cell in row["cells"])]
    looked = any(cell.get("pseudo_labels") for row in rows for cell in row["cells"])
    panels = (_MIOU, *(_PSEUDO_LABELS if looked else ()))
    figure = Figure(figsize=(4 + 4 * len(panels), 4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for own, panel in zip(axes, panels, strict=True):
        for number, row in enumerate(rows):
            _draw(own, panel, row, f"C{number % 10}", _LINES[number // 10 % len(_LINES)])
        if not any(line.get_xdata().size for line in own.lines):
            own.text(0.5, 0.5, "no pixel above τ", transform=own.transAxes, ha="center", fontsize=9)
        own.set_xlabel("adaptation iterations", fontsize=9)
        own.set_ylabel(panel.label, fontsize=9)
        if panel is not _MIOU:
            own.set_ylim(-2, 102)
        own.xaxis.get_major_locator().set_params(integer=True)
        own.grid(color="#dddddd", linewidth=0.6)
        own.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[-1].legend(handles, labels, fontsize=8, handlelength=4, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(f"evaluation images, {wrapped(report['base'], 80)}", fontsize=11)
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_atomic(path, content.getvalue())


def _draw(axes: Any, panel: _Panel, row: dict[str, Any], colour: str, style: str) -> None:
    histories = [cell[panel.history] for cell in row["cells"] if cell.get(panel.history)]
    curves = [{one["iteration"]: one[panel.key] for one in own if one[panel.key] is not None} for own in histories]
    if not curves:
        return
    for curve in curves:
        axes.plot(list(curve), list(curve.values()), color=colour, linestyle=style, linewidth=0.7, alpha=0.5)
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    means = [statistics.fmean(curve[iteration] for curve in curves) for iteration in common]
    label = wrapped(row["name"], 30)
    axes.plot(common, means, color=colour, linestyle=style, linewidth=2, marker="o", markersize=4, label=label)
