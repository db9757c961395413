"""A study's cells, run one after another; finished ones are read, stopped ones go on."""

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
from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe, load_recipe
from fastuda.recipe.warmup import warmup_fields
from fastuda.report.display import Display
from fastuda.runs.folder import RunFolder
from fastuda.runs.identity import differences, fields_of
from fastuda.runtime.compiled import forget
from fastuda.runtime.stop import StoppedError, StopRequest
from fastuda.study.kept import kept_results
from fastuda.study.plan import Cell, Plan
from fastuda.training.run import Results, train

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
    for cell in plan.cells:
        if cell.recipe.demo is None:
            for domain in (cell.recipe.source, cell.recipe.target):
                data_root(domain)
    outcomes: list[Outcome] = []
    failed: set[Path] = set()
    for number, cell in enumerate(plan.cells, 1):
        display.heading(f"[{number}/{len(plan.cells)}] {cell.row}, seed {cell.seed}")
        try:
            if cell.warmup is not None and cell.warmup.folder in failed:
                raise FastudaError(f"its warm-up failed: {cell.warmup.folder}")
            outcomes.append(Outcome(cell, _run(cell, stop, device, display, force)))
        except StoppedError as error:
            what = f"{cell.folder}: stopped ({stop.received}), everything saved"
            raise StoppedError(f"{what}; the same command goes on") from error
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


def _run(cell: Cell, stop: StopRequest, device: str | None, display: Display, force: bool) -> Results:
    folder = RunFolder(cell.folder)
    _refuse_another(cell)
    if _exists(folder.results):
        results = kept_results(cell, folder.results)
        display.note(f"finished before: {cell.folder}")
        return results
    if stop.received:  # it came when the cell before had only its results left to write
        raise StoppedError(f"{stop.received}: stopped before this run")
    resume = folder.standing() == "run"
    return train(
        cell.recipe, cell.folder, name=cell.name, device=device, init=None if resume else cell.init, resume=resume,
        force=force, stop=stop, display=display,
    )  # fmt: skip


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
