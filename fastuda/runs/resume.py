"""Going on with a run: from which checkpoint, and whether what is asked for now is still the same run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from fastuda.data.datasets import Datasets
from fastuda.errors import FastudaError, UnreadableError, UsageError
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint.notes import ADAPTED, SOURCE_ONLY
from fastuda.runs.checkpoint.state_file import SavedState
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runs.folder import RunFolder
from fastuda.runs.identity import Identity
from fastuda.runs.record import RunRecord

log = logging.getLogger(__name__)

_FORCE = "--force (in Python force=True) goes on all the same, and run.json and results.json say so"


@dataclass(frozen=True)
class Request:
    """What a run is asked to be."""

    recipe: Recipe
    name: str
    """The recipe's name."""
    named: Recipe | None
    """What the recipe of that name says before any setting; None for one that was never a file, and a run's own."""
    init: Path | None
    resume: bool
    force: bool
    world_size: int = 1
    """Ranks."""

    def identity(self, recipe: Recipe, data: Datasets) -> Identity:
        """What the run is made of; `recipe` is the request's with what weights have set and where drawn data lies."""
        return Identity.of(self.name, self.named, self.recipe, recipe, data, self.init, self.world_size)


@dataclass(frozen=True)
class Continued:
    """A run that is gone on with."""

    recipe: Recipe
    saved: SavedState
    record: RunRecord | None
    """None where it could not be read and `--force` passed over that."""
    forced: list[str]
    """The differences that `--force` has passed over so far."""


def continued(request: Request, folder: RunFolder) -> Continued:
    """The newest sound checkpoint of a run, and the recipe to go on with.

    Raises UsageError, with every difference, when another recipe, code or library is asked for than the run's own and
    nobody said `force`, and when the stage is to end before where it is already; FastudaError when no sound checkpoint
    is left; UnreadableError when the system does not let a checkpoint or run.json be read.
    """
    saved = CheckpointStore(folder.checkpoints).newest_sound(set_aside=True)
    try:
        record = RunRecord.read(folder.record)
    except UnreadableError:
        raise  # --force would write another over one that may be sound
    except FastudaError as error:
        if not request.force:
            raise FastudaError(f"{error}; {_FORCE}") from error
        _require_end(request.recipe, saved)
        return Continued(request.recipe, saved, None, [str(error)])
    lines = record.identity.asked_differences(
        request.name, request.named, request.recipe, request.init, request.world_size
    )
    if lines and not request.force:
        lengths = [line for line in lines if line.split(":")[0].endswith(".iterations")]
        advice = f"\n{folder.longer()}" if lengths else ""
        raise UsageError(
            f"{folder.path}: --resume with another recipe, code, library or number of ranks than the run's own:\n  "
            + "\n  ".join(lines)
            + f"{advice}\n{_FORCE}"
        )
    recipe = record.identity.resumed(request.recipe, load_recipe(str(folder.recipe)))
    _require_end(recipe, saved)
    return Continued(recipe, saved, record, lines)


def _require_end(recipe: Recipe, saved: SavedState) -> None:
    """UsageError for a recipe that ends, or leaves out, a stage before where it is already."""
    table, end = (
        ("warmup", recipe.warmup.iterations) if saved.stage == SOURCE_ONLY else ("train", recipe.train.iterations)
    )
    alone = saved.stage == ADAPTED and recipe.has_adapted_stage  # of statistics, without an iteration
    least = max(0 if alone else 1, saved.iteration)
    if end < least:
        raise UsageError(
            f"{saved.path}: {saved.iteration} iterations are done already, and {table}.iterations={end} would end this "
            f"stage before; ask for {least} or more, or start a new run with --init"
        )


def require_same_data(going_on: Continued, request: Request, recipe: Recipe, data: Datasets) -> RunRecord:
    """The run's record, to go on with; FastudaError when its data has become another and nobody said `force`."""
    identity = request.identity(recipe, data)
    if going_on.record is None:
        return RunRecord(identity=identity)
    lines = going_on.record.identity.data_differences(data)
    if lines and not request.force:
        raise FastudaError(
            "--resume with other data than the run's own:\n  " + "\n  ".join(lines) + f"\nbring it back, or: {_FORCE}"
        )
    going_on.forced.extend(lines)
    for line in going_on.forced:
        log.warning("--force: %s", line)
    if going_on.forced:
        # --init need not be said again, and is still where the run comes from.
        going_on.record.identity = identity.model_copy(update={"init": going_on.record.identity.init})
    return going_on.record


def begun(request: Request, folder: RunFolder) -> Request:
    """The request for a run that starts, or that had been begun in this folder and gets no other start by `--resume`.

    Raises UsageError when `--resume` names another recipe or another network to start from than the run was begun with.
    """
    earlier = folder.beginning()
    if not request.resume or earlier is None:
        return request
    name, init = earlier
    if name != request.name:
        raise UsageError(f"{folder.path}: begun with the recipe {name}, and you ask for {request.name}")
    if request.init is not None and request.init.absolute() != init:
        raise UsageError(f"{folder.path}: begun with --init {init}, and you ask for {request.init}")
    return replace(request, init=init)
