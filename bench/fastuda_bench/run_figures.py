"""Tables of training runs beside one another, made from their results.json."""

from __future__ import annotations

from typing import Any

from fastuda_bench.markdown import number, table
from fastuda_bench.study_figures import trained_on

_LEARNT = 5
"""IoU in percent from which on a class counts as learnt."""


def runs_over_time(runs: dict[str, dict[str, Any]]) -> str:
    """A row a run: mIoU by iteration, then the last IoU of the classes that any of them learns."""
    stages = _stages(runs)
    histories = {title: _start(runs[title]) | _history(stage) for title, stage in stages.items()}
    lasts = {title: stage["last"]["iou"] for title, stage in stages.items()}
    iterations = sorted({iteration for history in histories.values() for iteration in history})
    names = list(next(iter(lasts.values())))
    learnt = [name for name in names if any((iou[name] or 0) >= _LEARNT for iou in lasts.values())]
    rows = [
        (
            title,
            *(number(history.get(iteration)) for iteration in iterations),
            *(number(lasts[title][name]) for name in learnt),
        )
        for title, history in histories.items()
    ]
    others = ", ".join(name for name in names if name not in learnt)
    left_out = f"; {others}: below {_LEARNT} in each" if others else ""
    first = next(iter(runs.values()))
    origin = f"Seed {first['seed']}, {trained_on(first)}."
    note = f"mIoU by iteration, then the last IoU by class, in percent{left_out}. {origin}\n"
    return table(("", *map(str, iterations), *learnt), rows) + "\n" + note


def _start(results: dict[str, Any]) -> dict[int, float]:
    """mIoU of the network that a run was begun with, at iteration 0; nothing of a run with a warm-up of its own."""
    start = results.get("source_only")
    return {0: start["last"]["miou"]} if start is not None and start["last"]["iteration"] == 0 else {}


def _history(stage: dict[str, Any]) -> dict[int, float]:
    return {at["iteration"]: at["miou"] for at in stage["history"]}


def _stages(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    stages = {title: results.get("adapted", results.get("source_only")) for title, results in runs.items()}
    return {title: stage for title, stage in stages.items() if stage is not None}
