"""What rows scored, and what their pseudo-labels were worth, while they trained: curves by iteration."""

from __future__ import annotations

import io
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastuda.files.disk import write_atomic
from fastuda.study.chart import wrapped
from fastuda.study.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINES = ("-", "--", ":")
"""Where there are more rows than colours."""


@dataclass(frozen=True)
class _Panel:
    """One quantity over the adaptation's iterations."""

    key: str
    history: str
    """Of a cell: where its values stand, evaluation by evaluation."""
    label: str
    whole: bool = True
    """Whether its axis goes from 0 to 100."""


_PANELS = (
    _Panel("miou", "history", "mIoU, percent", whole=False),
    _Panel("precision_above_tau", "pseudo_labels", "right among the pixels above τ, percent"),
    _Panel("share_kept", "pseudo_labels", "pixels above τ, percent"),
)


def has_curves(report: Report) -> bool:
    """Whether there is more than a mark to draw: a row that was scored more than once, or its pseudo-labels."""
    cells = [cell for row in report["rows"] for cell in row["cells"]]
    return any(len(cell.get("history", ())) > 1 or cell.get("pseudo_labels") for cell in cells)


def curve_chart(path: Path, report: Report) -> None:
    """Write a PNG: mIoU by iteration and, where they were looked at, the pseudo-labels' precision and share above τ."""
    content = io.BytesIO()
    curve_figure(report).savefig(content, dpi=150, format="png")
    write_atomic(path, content.getvalue())


def curve_figure(report: Report) -> Figure:
    """The picture: a panel a quantity, a colour and a line style a row.

    Thin lines are seeds, the thick one is their mean at the iterations that all of them have, its label saying of how
    many where some have none. What was scored once is a mark.
    """
    from matplotlib.figure import Figure

    panels = [panel for panel in _PANELS if any(_histories(row, panel) for row in report["rows"])]
    figure = Figure(figsize=(4 + 4 * len(panels), 4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for own, panel in zip(axes, panels, strict=True):
        for number, row in enumerate(report["rows"]):
            if _histories(row, panel):
                _draw(own, panel, row, f"C{number % 10}", _LINES[number // 10 % len(_LINES)])
        if not any(line.get_xdata().size for line in own.lines):
            own.text(0.5, 0.5, "no pixel above τ", transform=own.transAxes, ha="center", fontsize=9)
        own.set_xlabel("adaptation iterations", fontsize=9)
        own.set_ylabel(panel.label, fontsize=9)
        if panel.whole:
            own.set_ylim(-2, 102)
        own.xaxis.get_major_locator().set_params(integer=True)
        own.grid(color="#dddddd", linewidth=0.6)
        own.spines[["top", "right"]].set_visible(False)
    named = {label: line for own in axes for line, label in zip(*own.get_legend_handles_labels(), strict=True)}
    axes[-1].legend(named.values(), named, fontsize=8, handlelength=4, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(f"evaluation images, {wrapped(report['base'], 80)}", fontsize=11)
    return figure


def _histories(row: dict[str, Any], panel: _Panel) -> list[list[dict[str, Any]]]:
    return [cell[panel.history] for cell in row["cells"] if cell.get(panel.history)]


def _draw(axes: Any, panel: _Panel, row: dict[str, Any], colour: str, style: str) -> None:
    histories = _histories(row, panel)
    curves = [{one["iteration"]: one[panel.key] for one in own if one[panel.key] is not None} for own in histories]
    for curve in curves:
        axes.plot(list(curve), list(curve.values()), color=colour, linestyle=style, linewidth=0.7, alpha=0.5)
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    means = [statistics.fmean(curve[iteration] for curve in curves) for iteration in common]
    some = f" ({len(curves)} of {len(row['cells'])} seeds)" if len(curves) < len(row["cells"]) else ""
    label = wrapped(row["name"] + some, 30)
    axes.plot(common, means, color=colour, linestyle=style, linewidth=2, marker="o", markersize=4, label=label)
