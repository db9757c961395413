"""What becomes of a study's cells, and their runs one after another; finished ones are read, stopped ones go on."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fastuda.data.reading.samples import data_root
from fastuda.errors import FastudaError, UsageError
from fastuda.files.disk import make_folder, write_atomic
from fastuda.files.lock import LOCK, held
from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe, load_recipe
from fastuda.recipe.warmup import warmup_fields
from fastuda.report.display import Display
from fastuda.runs.folder import RunFolder
from fastuda.runs.identity import differences, fields_of
from fastuda.runtime.compiled import forget
from fastuda.runtime.stop import StopAskedError, StoppedError, StopRequest
from fastuda.study.kept import kept_results
from fastuda.study.plan import Cell, Plan
from fastuda.training.run import Results, train

_PATIENCE_SECONDS = 60.0
"""For a process that still saves what it has in a run's folder, because its study was killed."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: results, or why there are none."""

    cell: Cell
    results: Results | None
    failure: str = ""


def run_study(
    plan: Plan,
    stop: StopRequest,
    *,
    device: str | None,
    display: Display,
    finished: Callable[[list[Outcome]], None],
    force: bool = False,
) -> list[Outcome]:
    """Run every cell that has no results yet, in order; `finished` sees all outcomes so far after each cell.

    A cell that fails (a loss that is not finite, say) does not end the study; cells that start from it fail
    with it, and a later call tries them again. `force` is `train`'s. Raises StoppedError once `stop` is asked for and
    there is something left to run, everything saved; UsageError when a folder holds a run of another recipe;
    FastudaError for a data folder that is not there.
    """
    display = display.unfailing()
    require_data(plan)
    outcomes: list[Outcome] = []
    failed: set[Path] = set()
    for number, cell in enumerate(plan.cells, 1):
        display.heading(f"[{number}/{len(plan.cells)}] {cell.row}, seed {cell.seed}")
        try:
            if cell.warmup is not None and cell.warmup.folder in failed:
                raise warmup_failed(cell.warmup)
            outcomes.append(Outcome(cell, run_cell(cell, stop, device=device, display=display, force=force)))
        except StoppedError as error:
            raise stopped(cell, str(stop.received)) from error
        except UsageError:
            raise
        except FastudaError as error:
            log.warning("%s, seed %d: %s", cell.row, cell.seed, error)
            failed.add(cell.folder)
            outcomes.append(Outcome(cell, None, str(error)))
        finished(outcomes)
        forget()  # torch.compile keeps eight variants of a function, and a study may have more recipes
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return outcomes


def require_data(plan: Plan) -> None:
    """FastudaError for a data folder that is not there."""
    for cell in plan.cells:
        if cell.recipe.demo is None:
            for domain in (cell.recipe.source, cell.recipe.target):
                data_root(domain)


def warmup_failed(warmup: Cell) -> FastudaError:
    """Why a cell that starts from it is not run."""
    return FastudaError(f"its warm-up failed: {warmup.folder}")


def stopped(cell: Cell, why: str) -> StoppedError:
    """What a study ends with when it was asked to, `cell` the first that is not finished."""
    return StoppedError(f"{cell.folder}: stopped ({why}), everything saved; the same command goes on")


def kept(cell: Cell) -> Results | None:
    """The results of a cell that finished before; None of one that is to be run.

    Raises UsageError when its folder holds a run of another recipe, FastudaError for results that cannot be read.
    """
    _refuse_another(cell)
    file = RunFolder(cell.folder).results
    return kept_results(cell, file) if _exists(file) else None


def run_cell(cell: Cell, stop: StopRequest, *, device: str | None, display: Display, force: bool) -> Results:
    """The results of a cell, which is run, or gone on with, if it has none yet.

    Raises StoppedError once `stop` is asked for, everything saved; UsageError as `kept` does; FastudaError for what
    the user can mend, HeldError among it when another process goes on to work in the folder.
    """
    results = kept(cell)
    if results is None and _another_ended(cell, stop):
        results = kept(cell)
    if results is not None:
        display.note(f"finished before: {cell.folder}")
        return results
    if stop.received:  # it came when the cell before had only its results left to write
        raise StoppedError(f"{stop.received}: stopped before this run")
    resume = RunFolder(cell.folder).standing() == "run"
    return train(
        cell.recipe, cell.folder, name=cell.name, device=device, init=None if resume else cell.init, resume=resume,
        force=force, stop=stop, display=display,
    )  # fmt: skip


def _another_ended(cell: Cell, stop: StopRequest) -> bool:
    """Wait until nobody works in the run's folder; whether anybody may have: what is to be done there shows then."""
    folder = RunFolder(cell.folder).path
    if not _exists(folder / LOCK):
        return False
    try:
        with held(folder, "looking", wait=True, patience=_PATIENCE_SECONDS, look=stop.look):
            return True
    except StopAskedError as asked:
        raise StoppedError(f"{stop.received}: stopped before this run") from asked


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise FastudaError(f"{path}: cannot be looked at ({error.strerror})") from error


def _refuse_another(cell: Cell) -> None:
    """Keep what the cell asks for beside its folder; UsageError when another recipe was asked for there before.

    A source-only run that finished is the same whatever the adaptation is to be. FastudaError when what was asked for
    cannot be read.
    The run's own recipe.toml would not do: in it stand the network that weights have set and the data folders.
    """
    asked = cell.folder.with_name(f"{cell.folder.name}.asked.toml")
    if not _exists(asked):
        make_folder(asked.parent)
        write_atomic(asked, dump_recipe(cell.recipe).encode(), durable=True)
        return
    try:
        before = load_recipe(str(asked))
    except UsageError as error:
        why = " ".join(str(error).split())
        raise FastudaError(f"{asked}: damaged ({why}); delete it if the run beside it is of this recipe") from error
    if not cell.recipe.has_adapted_stage:  # such a run says nothing of the statistics that others are scored with
        before = before.model_copy(update={"eval": before.eval.model_copy(update={"batch_norm": "running"})})
    changed = differences(fields_of(before), fields_of(cell.recipe))
    if changed and not (_is_finished_warmup(cell) and _same_warmup(before, cell.recipe)):
        raise UsageError(
            f"{cell.folder}: this folder holds a run of another recipe; choose another --run folder, or undo:\n  "
            + "\n  ".join(changed)
        )


def _is_finished_warmup(cell: Cell) -> bool:
    return not cell.recipe.has_adapted_stage and _exists(RunFolder(cell.folder).results)


def _same_warmup(one: Recipe, other: Recipe) -> bool:
    return one.seed == other.seed and warmup_fields(one) == warmup_fields(other)
