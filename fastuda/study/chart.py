"""A study as a picture: every seed's mIoU, mean and deviation a row, gains over the control and the paper's numbers."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

from fastuda.files.disk import write_atomic
from fastuda.study.report import Report

_MEASURED, _SEED, _PAPER = "#2f7d4f", "#7aa6c2", "#b5622d"


def study_chart(path: Path, report: Report) -> None:
    """Write a PNG of the rows that have scores.

    Gains over the control have an axis of their own, where there are such, and the paper's numbers, whose pair differs.
    """
    from matplotlib.figure import Figure

    rows = [row for row in report["rows"] if row["last"] is not None]
    drawn = [_draw_measured]
    if any((row.get("gain_over_control") or {}).get("by_seed") for row in rows):
        drawn.append(_draw_gains)
    if any(row["paper"] is not None for row in rows):
        drawn.append(_draw_paper)
    figure = Figure(figsize=(5 + 4 * (len(drawn) - 1), 0.42 * len(rows) + 1.8), layout="constrained")
    axes = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for draw, own in zip(drawn, axes, strict=True):
        draw(own, rows, report)
    axes[0].set_yticks(range(len(rows)), [wrapped(row["name"], 30) for row in rows], fontsize=9)
    axes[0].set_ylim(len(rows) - 0.5, -0.9)  # from the first row at the top, which its number stands above
    figure.suptitle(wrapped(report["title"], 45 * len(drawn)), fontsize=11)
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_atomic(path, content.getvalue())


def _draw_measured(axes: Any, rows: list[dict[str, Any]], report: Report) -> None:
    for i, row in enumerate(rows):
        seeds = [cell["last"]["miou"] for cell in row["cells"]]
        axes.plot(seeds, [i] * len(seeds), "o", color=_SEED, markersize=5, zorder=1)
        mean, std = row["last"]["miou"]["mean"], row["last"]["miou"]["std"]
        axes.errorbar(
            mean, i, xerr=std, fmt="|", color=_MEASURED, markersize=14, markeredgewidth=2, capsize=3, zorder=2
        )
        axes.annotate(f"{mean:.1f}", (mean, i), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=8)
    count = len(report["seeds"])
    _finish(axes, f"mIoU on {report['base']}, percent; {count} seed{'s' if count > 1 else ''}, mean and deviation")


def _draw_gains(axes: Any, rows: list[dict[str, Any]], report: Report) -> None:
    axes.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    for i, row in enumerate(rows):
        gain = row.get("gain_over_control") or {}
        if not gain.get("by_seed"):
            continue
        axes.plot(list(gain["by_seed"].values()), [i] * gain["n"], "o", color=_SEED, markersize=5, zorder=1)
        low, high = gain["interval"] or (gain["mean"], gain["mean"])
        axes.errorbar(
            gain["mean"], i, xerr=[[gain["mean"] - low], [high - gain["mean"]]], fmt="|", color=_MEASURED,
            markersize=14, markeredgewidth=2, capsize=3, zorder=2,
        )  # fmt: skip
        where = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        axes.annotate(f"{gain['mean']:+.1f}", (gain["mean"], i), **where)
    _finish(axes, f"gain over {report['control']}, percent; mean and 95 % interval")


def _draw_paper(axes: Any, rows: list[dict[str, Any]], report: Report) -> None:
    for i, row in enumerate(rows):
        if row["paper"] is not None:
            axes.plot(row["paper"], i, "D", color=_PAPER, markersize=6, markerfacecolor="none")
            where = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(f"{row['paper']:.1f}", (row["paper"], i), **where)
    _finish(axes, f"the paper's mIoU, {report['pair']}, percent")


def _finish(axes: Any, label: str) -> None:
    axes.set_xlabel(wrapped(label, 40), fontsize=9)
    axes.margins(x=0.12)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def wrapped(text: str, width: int) -> str:
    """Text in lines of at most so many characters, which matplotlib does not read as mathematics."""
    return textwrap.fill(text, width).replace("$", r"\$")
