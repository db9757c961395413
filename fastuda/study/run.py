"""A study's cells, run one after another; finished ones are read, stopped ones go on."""

from __future__ import annotations

import gc
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fastuda.datasets import with_demo_data
from fastuda.display import Display
from fastuda.errors import FastudaError, UsageError
from fastuda.run_folder import RunFolder
from fastuda.runtime import StoppedError
from fastuda.study.plan import Cell, Plan
from fastuda.train import Results, train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: results, or why there are none."""

    cell: Cell
    results: Results | None
    failure: str = ""


def run_study(
    plan: Plan, *, device: str | None, display: Display, finished: Callable[[list[Outcome]], None]
) -> list[Outcome]:
    """Run every cell that has no results yet, in order; `finished` sees all outcomes so far after each cell.

    A cell that fails (a loss that is not finite, say) does not end the study; cells that start from it fail
    with it, and a later call tries them again. Raises StoppedError on Ctrl-C or SIGTERM, everything saved, and
    UsageError when a folder holds a run of another recipe.
    """
    outcomes: list[Outcome] = []
    failed: set[Path] = set()
    for number, cell in enumerate(plan.cells, 1):
        display.heading(f"[{number}/{len(plan.cells)}] {cell.row}, seed {cell.seed}")
        try:
            if cell.warmup is not None and cell.warmup.folder in failed:
                raise FastudaError(f"its warm-up failed: {cell.warmup.folder}")
            outcomes.append(Outcome(cell, _run(cell, device, display)))
        except (StoppedError, UsageError):
            raise
        except FastudaError as error:
            log.warning("%s, seed %d: %s", cell.row, cell.seed, error)
            failed.add(cell.folder)
            outcomes.append(Outcome(cell, None, str(error)))
        finished(outcomes)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return outcomes


def _run(cell: Cell, device: str | None, display: Display) -> Results:
    folder = RunFolder(cell.folder)
    if folder.results.exists():
        RunFolder.reopen(cell.folder, with_demo_data(cell.recipe, display.task))  # refuses another recipe's results
        results: Results = json.loads(folder.results.read_text())
        display.note(f"finished before: {cell.folder}")
        return results
    resume = folder.last_state.exists()
    if not resume and folder.recipe.exists():
        shutil.rmtree(cell.folder)  # killed before its first checkpoint: a recipe and nothing trained
    init = None if resume else cell.init
    return train(cell.recipe, cell.folder, name=cell.name, device=device, init=init, resume=resume, display=display)
