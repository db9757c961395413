"""A study from plan to report: every cell run, the report and its picture kept after each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fastuda.files.disk import make_folder
from fastuda.files.lock import held
from fastuda.recipe.file import require_text
from fastuda.report.display import Display
from fastuda.runtime.stop import StopRequest
from fastuda.study.chart import study_chart
from fastuda.study.curves import curve_chart, has_curves
from fastuda.study.plan import Plan
from fastuda.study.report import Report, report, write_report
from fastuda.study.run import Outcome, run_study
from fastuda.study.schedule import run_in_processes
from fastuda.study.workers import cards


def conduct(
    plan: Plan,
    folder: Path,
    name: str,
    *,
    device: str | None,
    display: Display,
    force: bool = False,
    deadline: float | None = None,
    ends_process: bool = False,
    workers: int = 1,
) -> Report:
    """Run what has not run yet and write NAME.json and NAME.png into `folder`, anew after each cell.

    NAME-curves.png too, where a row was scored more than once or its pseudo-labels were looked at. Rows that the plan
    leaves out, and those unlike the control, are told first. Returns the report of all cells; failed ones stand in its
    rows' `failures`. A signal, or the `deadline` of `time.monotonic`, ends it before the next cell, if not in the
    middle of one; `ends_process` is `train`'s. With more than one of `workers`, cells run in as many processes, each
    with a GPU of its own. Raises as `run_study` does, HeldError when another study runs in the folder, and UsageError
    for more workers than GPUs.
    """
    places = cards(workers, device) if workers > 1 else None

    def keep(outcomes: list[Outcome]) -> None:
        content = report(plan, outcomes, folder)
        write_report(folder / f"{name}.json", content)
        if any(row["last"] is not None for row in content["rows"]):
            study_chart(folder / f"{name}.png", content)
        if has_curves(content):
            curve_chart(folder / f"{name}-curves.png", content)

    for row, why in plan.left_out.items():
        display.note(f"left out: {row}; {why}")
    for row, why in plan.unlike_control.items():
        display.note(f"unlike the control: {row}; {why}")
    for cell in plan.cells:
        require_text(cell.recipe)
    with (
        # A second Ctrl-C has to end the processes too.
        StopRequest(deadline, ends_process=ends_process and places is None) as stop,
        held(make_folder(folder), "running a study", wait=False),
    ):
        run = run_study if places is None else partial(run_in_processes, cards=places)
        outcomes = run(plan, stop, device=device, display=display, finished=keep, force=force)
        return report(plan, outcomes, folder)


def failures(content: Report) -> list[str]:
    """A line for every cell of a report that failed: row, seed, reason."""
    return [f"{row['name']}, seed {seed}: {why}" for row in content["rows"] for seed, why in row["failures"].items()]
