"""A study from plan to report: every cell run, the report and its picture kept after each."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastuda.data.cache import make_folder
from fastuda.display import Display
from fastuda.errors import FastudaError
from fastuda.study.chart import study_chart
from fastuda.study.plan import Plan
from fastuda.study.report import Report, report, write_report
from fastuda.study.run import Outcome, run_study


def conduct(plan: Plan, folder: Path, name: str, *, device: str | None, display: Display) -> Report:
    """Run what has not run yet and write NAME.json and NAME.png into `folder`, anew after each cell.

    Returns the report of all cells; failed ones stand in its rows' `failures`. Raises as `run_study` does.
    """

    def keep(outcomes: list[Outcome]) -> None:
        content = report(plan, outcomes, folder)
        write_report(folder / f"{name}.json", content)
        if any(row["last"] is not None for row in content["rows"]):
            study_chart(folder / f"{name}.png", content)

    with _alone(make_folder(folder)):
        return report(plan, run_study(plan, device=device, display=display, finished=keep), folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder while entered; FastudaError when another process holds it."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FastudaError(f"{folder}: another study runs in this folder; wait, or choose another --run") from error
        yield


def failures(content: Report) -> list[str]:
    """A line for every cell of a report that failed: row, seed, reason."""
    return [f"{row['name']}, seed {seed}: {why}" for row in content["rows"] for seed, why in row["failures"].items()]
