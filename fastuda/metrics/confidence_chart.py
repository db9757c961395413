"""Confidence as pictures: what each threshold keeps (paper figure 2), and how far confidence is from accuracy."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from fastuda.files.disk import write_atomic
from fastuda.metrics.confidence import ConfidenceScores

_PIXELS, _ERRORS, _BOUNDARY, _RATE, _GREY = "#7aa6c2", "#b5622d", "#e0a458", "#2f7d4f", "#5b6570"
_SIZE = (9.0, 5.4)


def threshold_chart(path: Path, scores: ConfidenceScores, tau: float) -> None:
    """Write a PNG of paper figure 2 as curves: pixels and errors kept, errors among the kept, with `tau` marked.

    Raises ValueError when `tau` was not counted, FastudaError when the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.axvline(tau, color=_GREY, linewidth=1, linestyle=":", zorder=1)
    for curve, quantity, name, colour, style in (
        (scores.overall, "pixels", "pixels kept", _PIXELS, "-"),
        (scores.overall, "errors", "wrong pixels kept", _ERRORS, "-"),
        (scores.boundary, "errors", "wrong pixels kept, at boundaries", _BOUNDARY, "--"),
        (scores.overall, "error_rate", "wrong among the kept", _RATE, "-"),
    ):
        value = getattr(curve.at(tau), quantity)
        label = name if np.isnan(value) else f"{name}: {value:.1f} %"
        axes.plot(curve.thresholds, getattr(curve, quantity), style, color=colour, linewidth=2, label=label)
        axes.plot(tau, value, "o", color=colour, markersize=6, zorder=3)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 102)
    axes.set_xlabel("confidence threshold τ; kept: confidence > τ", fontsize=11)
    axes.set_ylabel("percent", fontsize=11)
    axes.set_title("Pixels that a confidence threshold keeps", fontsize=13)
    legend = axes.legend(title=f"at τ = {tau:g}", frameon=True, framealpha=0.9, edgecolor="none", fontsize=10)
    legend.set_zorder(4)
    _finish(axes)
    _write(path, figure)


def reliability_chart(path: Path, scores: ConfidenceScores) -> None:
    """Write a PNG of accuracy over confidence, with the gap between them and the share of pixels of every bin.

    Raises FastudaError when the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    accuracy, share = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
    _draw_accuracy(accuracy, scores)
    _draw_shares(share, scores)
    for axes in (accuracy, share):
        axes.set_xlim(0, 100)
        _finish(axes)
    figure.align_ylabels()
    title = "no pixels" if np.isnan(scores.ece) else f"expected calibration error {scores.ece:.2f} %"
    figure.suptitle(f"Confidence and accuracy: {title}", fontsize=13)
    _write(path, figure)


def _draw_accuracy(axes: Any, scores: ConfidenceScores) -> None:
    width = 100 / len(scores.reliability)
    centres = [(i + 0.5) * width for i in range(len(scores.reliability))]
    accuracies = np.array([one.accuracy for one in scores.reliability])
    confidences = np.array([one.confidence for one in scores.reliability])
    axes.bar(centres, accuracies, 0.92 * width, color=_PIXELS, label="accuracy")
    gaps = confidences - accuracies
    axes.bar(
        centres, gaps, 0.92 * width, accuracies, color="none", edgecolor=_ERRORS, hatch="///", linewidth=1, label="gap"
    )
    axes.plot([0, 100], [0, 100], color=_GREY, linewidth=1, linestyle="--", label="accuracy = confidence")
    axes.plot(confidences, confidences, "o", color=_ERRORS, markersize=4, label="mean confidence")
    axes.set_ylim(0, 102)
    axes.set_ylabel("accuracy, percent", fontsize=11)
    axes.legend(frameon=False, fontsize=10, loc="upper left")


def _draw_shares(axes: Any, scores: ConfidenceScores) -> None:
    width = 100 / len(scores.reliability)
    for i, one in enumerate(scores.reliability):
        if not one.share > 0:
            continue
        centre = (i + 0.5) * width
        axes.bar(centre, one.share, 0.92 * width, color=_GREY)
        text = f"{one.share:.1f}" if one.share >= 0.05 else "<0.1"
        axes.annotate(text, (centre, one.share), (0, 2), textcoords="offset points", ha="center", fontsize=9)
    axes.set_ylim(0, 120)
    axes.set_yticks([0, 50, 100])
    axes.set_ylabel("pixels, percent", fontsize=11)
    axes.set_xlabel("confidence, percent", fontsize=11)


def _finish(axes: Any) -> None:
    axes.tick_params(labelsize=10)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _write(path: Path, figure: Any) -> None:
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    write_atomic(path, content.getvalue())
