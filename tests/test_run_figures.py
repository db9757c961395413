"""Tables of training runs on the project's pages."""

from __future__ import annotations

from typing import Any

from fastuda_bench.run_figures import runs_over_time


def results(history: dict[int, float], *, start: dict[str, Any] | None = None, **iou: float | None) -> dict[str, Any]:
    """Of a run of two stages, or of an adaptation alone."""
    last = {"iteration": max(history), "miou": history[max(history)], "iou": iou}
    over_time = [{"iteration": iteration, "miou": miou} for iteration, miou in history.items()]
    origin = {"seed": 3, "device": "CPU", "versions": {"torch": "2.13.0"}, "source_only": start}
    return {**origin, "adapted": {"last": last, "history": over_time}}


def begun(iteration: int) -> dict[str, Any]:
    """A network as a run's first stage leaves it: scored after its iterations, after none where it was given."""
    return {"last": {"iteration": iteration, "miou": 30.0}}


RUNS = {
    "short": results({100: 31.0, 200: 32.04}, start=begun(0), road=80.0, pole=0.3, bus=None),
    "long": results({200: 33.0, 400: 35.0}, start=begun(200), road=81.0, pole=4.9, bus=9.0),
}


def cells(line: str) -> list[str]:
    return [one.strip() for one in line.strip("|").split("|")]


def test_a_row_a_run_with_every_iteration_that_any_was_scored_after() -> None:
    head, _, first, second, _, note = runs_over_time(RUNS).splitlines()
    assert cells(head) == ["", "0", "100", "200", "400", "road", "bus"]
    assert cells(first) == ["short", "30.0", "31.0", "32.0", "–", "80.0", "–"]
    assert cells(second) == ["long", "–", "–", "33.0", "35.0", "81.0", "9.0"]
    assert note.startswith("mIoU by iteration, then the last IoU by class, in percent; pole: below 5 in each. Seed 3, ")
