"""A study's cells in processes, several at a time, each as soon as its warm-up is done."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import torch

from fastuda.errors import FastudaError, UsageError
from fastuda.report.display import Display
from fastuda.runs.checkpoint.notes import ADAPTED, SOURCE_ONLY
from fastuda.runtime.stop import StopRequest
from fastuda.study.cell import Answer, Request
from fastuda.study.cell_process import CellProcess, log_of
from fastuda.study.plan import Cell, Plan
from fastuda.study.run import Outcome, kept, require_data, stopped, warmup_failed
from fastuda.study.workers import Card, Workers
from fastuda.training.run import Results

log = logging.getLogger(__name__)


def run_in_processes(
    plan: Plan,
    stop: StopRequest,
    *,
    cards: Sequence[Card],
    device: str | None,
    display: Display,
    finished: Callable[[list[Outcome]], None],
    force: bool = False,
) -> list[Outcome]:
    """As `run_study`, but each cell in a process of its own, with the first free one of the cards.

    A cell begins when its warm-up is done, of several the first of the plan; outcomes are in the plan's order, whatever
    ended first. They are those of `run_study` bit for bit: on the CPU, too, where the last bits depend on the number of
    threads, a process has as many as this one, however many work at a time.

    A process that dies fails its cell. Whatever ends the study lets the runs save what they have, but for a
    KeyboardInterrupt, which kills them. A process that is itself asked to stop, by SIGTERM, ends the study as this one
    does.
    """
    require_data(plan)
    display = display.unfailing()
    cells = _Cells(plan, display, finished)
    threads, command = torch.get_num_threads(), list(sys.argv)
    with Workers(cards) as workers:
        while not cells.are_done:
            asked = stop.received or cells.stopped_by
            if asked and (count := workers.stop()):
                runs = "1 run saves" if count == 1 else f"{count} runs save"
                display.note(f"{asked}: {runs} what there is; a further Ctrl-C ends everything at once")
            cell = None if workers.are_full or (asked and workers.running) else cells.next(workers.running)
            if cell is None:
                for process, answer in workers.ended():
                    cells.take(process, answer)
            elif not cells.is_settled(cell):
                if asked:
                    raise stopped(cell, asked)
                cells.begin(workers, Request(cell, device, force, threads, command))
    return cells.outcomes


class _Cells:
    """What became of a plan's cells so far, and which is next."""

    def __init__(self, plan: Plan, display: Display, finished: Callable[[list[Outcome]], None]) -> None:
        self._plan = plan
        self._display = display
        self._finished = finished
        self._found: dict[Path, Outcome] = {}
        self.stopped_by: str | None = None
        """What stopped one of the processes, without a word from here."""

    @property
    def outcomes(self) -> list[Outcome]:
        """Those that there are, in the plan's order."""
        return [self._found[cell.folder] for cell in self._plan.cells if cell.folder in self._found]

    @property
    def are_done(self) -> bool:
        """Whether every cell has its outcome."""
        return len(self._found) == len(self._plan.cells)

    def next(self, running: Sequence[CellProcess]) -> Cell | None:
        """The first that can begin; None while all wait for warm-ups that are run."""
        begun = {*self._found, *(process.request.cell.folder for process in running)}
        for cell in self._plan.cells:
            if cell.folder not in begun and (cell.warmup is None or cell.warmup.folder in self._found):
                return cell
        return None

    def is_settled(self, cell: Cell) -> bool:
        """Whether a cell need not, or cannot, be run: it finished before, or its warm-up failed; its outcome is kept.

        Raises UsageError when its folder holds a run of another recipe.
        """
        try:
            if cell.warmup is not None and self._found[cell.warmup.folder].results is None:
                raise warmup_failed(cell.warmup)
            results = kept(cell)
        except UsageError:
            raise
        except FastudaError as error:
            self._fail(cell, str(error))
            return True
        if results is None:
            return False
        self._display.note(f"{self._title(cell)}: finished before")
        self._keep(cell, results)
        return True

    def begin(self, workers: Workers, request: Request) -> None:
        """Run a cell."""
        cell = request.cell
        try:
            card = workers.begin(request)
        except FastudaError as error:
            self._fail(cell, str(error))
            return
        place = "begun" if card is None else f"on GPU {card}"
        self._display.note(f"{self._title(cell)}: {place}, log in {log_of(cell.folder)}")

    def take(self, process: CellProcess, answer: Answer) -> None:
        """Keep what became of a cell that was run, unless it was stopped; UsageError when it was asked for wrongly."""
        cell, (end, said) = process.request.cell, answer
        took = timedelta(seconds=round(process.seconds))
        if end == "wrong usage":
            raise UsageError(said)
        if end == "stopped":
            self._display.note(f"{self._title(cell)}: stopped after {took}, everything saved")
            self.stopped_by = self.stopped_by or said
            return
        results: Results | None = None
        if end == "finished":
            try:
                results, said = kept(cell), f"{cell.folder}: the run finished, and its results are gone"
            except FastudaError as error:
                said = str(error)
        if results is None:
            self._display.note(f"{self._title(cell)}: failed after {took}")
            self._fail(cell, said)
            return
        scored = results.get(ADAPTED) or results[SOURCE_ONLY]
        self._display.note(f"{self._title(cell)}: mIoU {scored['last']['miou']:.2f} after {took}")
        self._keep(cell, results)

    def _title(self, cell: Cell) -> str:
        number = 1 + [one.folder for one in self._plan.cells].index(cell.folder)
        return f"[{number}/{len(self._plan.cells)}] {cell.row}, seed {cell.seed}"

    def _keep(self, cell: Cell, results: Results) -> None:
        self._found[cell.folder] = Outcome(cell, results)
        self._finished(self.outcomes)

    def _fail(self, cell: Cell, why: str) -> None:
        log.warning("%s, seed %d: %s", cell.row, cell.seed, why)
        self._found[cell.folder] = Outcome(cell, None, why)
        self._finished(self.outcomes)
