"""A whole run: data, warm-up, adaptation, scores, pictures (protocol rows 4, 21, 22)."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from fastuda.data.cache import cache_folder
from fastuda.data.datasets import Datasets, prepare_all, with_demo_data, with_demo_folders
from fastuda.data.reading.samples import data_root
from fastuda.distributed.lost import loss_told
from fastuda.distributed.place import Place
from fastuda.distributed.ranks import Ranks, joined
from fastuda.errors import FastudaError, UnreadableError, UsageError
from fastuda.evaluation.comparison import comparison_grid
from fastuda.files.lock import Look
from fastuda.memory.estimate import require_memory
from fastuda.memory.out_of_memory import is_out_of_memory, memory_told, shortage, shortage_told
from fastuda.method.optimizer import remembered
from fastuda.method.reference import blank_reference, reference_of, require_same_reference
from fastuda.model.build import build_model, build_network
from fastuda.model.grouped_batch_norm import synchronise
from fastuda.model.passes import Passes
from fastuda.model.place import placed
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Recipe
from fastuda.recipe.file import require_text
from fastuda.report.display import Display, display_of
from fastuda.runs.checkpoint.model_file import ModelFile
from fastuda.runs.checkpoint.model_mend import Which, held_or_mended
from fastuda.runs.checkpoint.notes import ADAPTED, SOURCE_ONLY, STAGES, Notes, Record
from fastuda.runs.checkpoint.state_file import SavedState, require_fit
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runs.checkpoint.writer import CheckpointWriter, NoCheckpoints
from fastuda.runs.folder import RunFolder
from fastuda.runs.provenance import provenance
from fastuda.runs.record import RunRecord
from fastuda.runs.resume import Continued, Request, begun, continued, require_same_data
from fastuda.runtime.device import choose_device, device_name
from fastuda.runtime.fast_path import FastPath, declined
from fastuda.runtime.stop import StopAskedError, StoppedError, StopRequest
from fastuda.runtime.switches import configured
from fastuda.runtime.watchdog import Watchdog
from fastuda.training.log import NoLog, RunLog
from fastuda.training.stage import Progress, Run, Stage, evaluate_model, run_stage

log = logging.getLogger(__name__)

Results = dict[str, Any]


def train(
    recipe: Recipe,
    path: Path,
    *,
    name: str,
    device: str | None = None,
    init: Path | None = None,
    resume: bool = False,
    force: bool = False,
    named: Recipe | None = None,
    deadline: float | None = None,
    ends_process: bool = False,
    stop: StopRequest | None = None,
    display: Display,
) -> Results:
    """Run a recipe in the folder `path` and return what is then in its results.json.

    `name` is the recipe's, for the record, and `named` what it says before any setting. `init` starts the adaptation
    from a trained network and skips the warm-up; `resume` continues a stopped run, from the beginning if it has no
    checkpoint yet, and `force` continues it though recipe, data, code or libraries are others. Without adaptation
    iterations the run is source-only training, or with `init` a score of that network; with target statistics
    (`eval.batch_norm`) it then has an adapted stage in which nothing is trained. `deadline`, of
    `time.monotonic`, ends it as a signal does. `ends_process` says that the process is a command's own, which a second
    Ctrl-C and the watchdog end. `stop` takes the place of all three where a request goes beyond this run, as a study's
    does; it is entered already. One that comes when all is trained lets the run finish. torch's switches are put back.

    As one of the ranks that torchrun started it trains with the others, of which the first alone reads and writes the
    folder and shows anything; where torchrun has started all anew, the run goes on from its last checkpoint.

    Raises FastudaError for anything the user can mend, HeldError when another process works in the folder,
    StoppedError when a signal or the deadline ended the run, everything saved, and LostRankError when another rank is
    gone.
    """
    place = Place.of_environment()
    display = display.unfailing() if place.rank == 0 else display_of(False)
    torch_device = choose_device(device)
    folder = RunFolder(path)
    resume = resume or place.num_restarts > 0
    for one in (recipe, with_demo_folders(recipe)):
        require_text(one)
    if place.rank == 0:
        folder.require(resume=resume)  # before anything is made
    own: AbstractContextManager[StopRequest] = (
        nullcontext(stop) if stop is not None else StopRequest(deadline, ends_process=ends_process)
    )
    with (
        configured(recipe.runtime, torch_device),
        joined(torch_device, place) as ranks,  # first, so that a signal ends a rank that waits for others to come
        own as stop,
        folder.entered() if ranks.first else nullcontext(),
        Watchdog(recipe.runtime.watchdog_minutes, folder.again(place), ends_process=stop.ends_process) as watchdog,
    ):
        request = Request(recipe, name, named, init, resume, force, ranks.size)
        try:
            with shortage_told("the run"), nullcontext() if ranks.alone else loss_told():
                # Wherever nothing more is known of it.
                return _train(request, folder, torch_device, display, stop, watchdog, ranks)
        except StopAskedError as asked:
            again = folder.again(place)
            raise StoppedError(f"{asked} before the first checkpoint; nothing is lost, {again}") from asked


def _train(
    request: Request,
    folder: RunFolder,
    device: torch.device,
    display: Display,
    stop: StopRequest,
    watchdog: Watchdog,
    ranks: Ranks,
) -> Results:
    def task(title: str) -> Progress:
        """A progress bar whose steps are signs of life, and that ends when a stop is asked for."""
        return watchdog.watching(stop.watching(display.task(title)))

    def look() -> None:
        """While something else is waited for: a sign of life, and the end of the wait when a stop is asked for."""
        watchdog.alive()
        stop.look()

    ranks = ranks.looking(look)
    going_on: Continued | None = None
    if ranks.first:
        going_on, request = _standing(request, folder)
    saved = ranks.shared(lambda: None if going_on is None else going_on.saved.apart_from_tensors())
    if going_on is not None:
        saved = going_on.saved
    recipe, init = ranks.shared(lambda: (going_on.recipe if going_on else request.recipe, request.init))
    with ranks.machine_first():
        recipe = with_demo_data(recipe, task, look)
    for domain in (recipe.source, recipe.target):
        data_root(domain)
    require_memory(recipe, device, look)
    fast = FastPath.of(recipe.runtime, device)
    model, recipe = _network(recipe, init, saved, fast, ranks, look)
    with ranks.machine_first():
        data = prepare_all(recipe, task, look)
    _require_equal_data(data, ranks)
    record: RunRecord | None = None
    forced: list[str] = []
    if going_on is not None:
        record, forced = require_same_data(going_on, request, recipe, data), going_on.forced
    elif ranks.first:
        record = RunRecord(identity=request.identity(recipe, data))
    notes = saved.notes if saved else Notes(warmup=init is None and recipe.warmup.iterations > 0)
    if ranks.first:
        if forced or not going_on:
            folder.write_recipe(recipe)
        for line in declined(recipe.runtime, device):
            log.warning(line)
    with memory_told("adaptation", recipe, device):
        model = placed(model, fast, device)
        reference = _reference(recipe, notes, fast, device, ranks, look)
    since = (saved.stage, saved.iteration) if saved else None
    if record is not None:
        record.begin(device_name(device), since, forced)
        record.write(folder.record)

    ranks = ranks.looking(watchdog.alive)  # a stop is agreed on from here on, never raised on one rank alone
    passes = Passes.of(recipe, device)
    store = CheckpointStore(folder.checkpoints, recipe.train.checkpoints_kept)
    with (
        RunLog(folder, since, notes.rows) if ranks.first else NoLog(folder) as run_log,
        CheckpointWriter(store, folder.sync_log) if ranks.first else NoCheckpoints(store) as checkpoints,
    ):
        run = Run(
            recipe, folder, data, device, passes, fast, display, task, run_log, stop, watchdog, store, checkpoints,
            notes, ranks, reference,
        )  # fmt: skip
        if saved is not None:
            if ranks.first:
                _sound_models(run, model)  # while there may be a checkpoint to write one anew from
        elif init is not None:
            ranks.broadcast_([*model.state_dict().values()])
            evaluate_model(run, SOURCE_ONLY, "--init", model.eval(), 0)
        for stage in _stages(recipe, notes.warmup):
            model = run_stage(run, stage, model, saved)

        def finished() -> Results:
            assert record is not None
            checkpoints.wait()
            for file in run.unsaved:  # `--init` without a stage: a score of that network
                file.write(model.state_dict())
            _compare(run, model)
            return _finish(run, request.name, record)

        return ranks.shared(finished)


def _standing(request: Request, folder: RunFolder) -> tuple[Continued | None, Request]:
    """The run that is gone on with, if there is one; else the folder is made a new one's. And what is asked for."""
    found = folder.require(resume=request.resume)  # again, now that nobody else can come between
    if found == "run":
        return continued(request, folder), request
    if found == "half-made" or request.resume:
        log.info("%s: no checkpoint here yet, so the run starts from the beginning", folder.path)
    request = begun(request, folder)
    folder.begin(request.recipe, request.name, request.init)
    return None, request


def _network(
    recipe: Recipe, init: Path | None, saved: SavedState | None, fast: FastPath, ranks: Ranks, look: Look
) -> tuple[Segmenter, Recipe]:
    """The network on the CPU, and the recipe with what its weights have set.

    The first rank reads weights, and has them sent to the others when a stage begins.
    """
    if saved is not None:
        model = build_network(recipe)  # its weights are in the saved state
        optimizer = (recipe.warmup if saved.stage == SOURCE_ONLY else recipe.train).optimizer
        if ranks.first:
            require_fit(saved, model, remembered=remembered(optimizer, flat=fast.flat_update))
    else:
        read = build_model(recipe, cache_folder(recipe.data), init, look) if ranks.first else None
        settings = ranks.shared(lambda: None if read is None else read[1].model)
        recipe = recipe.model_copy(update={"model": settings})
        model = build_network(recipe) if read is None else read[0]
    if recipe.distributed.sync_batch_norm and not ranks.alone and (others := synchronise(model)):
        raise UsageError(
            f"distributed.sync_batch_norm: {len(others)} BatchNorm layers of this network are torch's own "
            f"({', '.join(others[:3])}), whose statistics stay a rank's; leave it out"
        )
    return model, recipe


def _reference(
    recipe: Recipe, notes: Notes, fast: FastPath, device: torch.device, ranks: Ranks, look: Look
) -> Segmenter | None:
    """The student's own start, frozen, where a term reads it: the first rank reads the weights, and sends them."""
    read = reference_of(recipe, cache_folder(recipe.data), look) if ranks.first else blank_reference(recipe)
    if read is None:
        return None
    if ranks.first:
        notes.reference = require_same_reference(read, notes.reference)
    reference = placed(read, fast, device)
    ranks.broadcast_([*reference.state_dict().values()])
    return reference


def _require_equal_data(data: Datasets, ranks: Ranks) -> None:
    """FastudaError where a machine has other data than the first rank's, or has packed it otherwise."""
    own = (ranks.place.told, data.fingerprints())
    (first, expected), *others = ranks.gathered(own)
    for who, found in others:
        if unlike := [split for split in expected if found.get(split) != expected[split]]:
            raise FastudaError(
                f"{who} has other data than {first} ({', '.join(unlike)}): bring all machines' copies to one state, or "
                "let them read one folder; `fastuda data check` tells what is in a copy"
            )


def _stages(recipe: Recipe, warmup: bool) -> list[Stage]:
    stages = []
    if warmup:
        stages.append(Stage(SOURCE_ONLY, "warm-up", recipe.warmup.iterations, recipe.warmup.optimizer))
    if recipe.has_adapted_stage:
        stages.append(Stage(ADAPTED, "adaptation", recipe.train.iterations, recipe.train.optimizer))
    return stages


def _sound_models(run: Run, model: Segmenter) -> set[Path]:
    """The models that were written and can be read; says which cannot, and writes those anew that still can be."""
    sound = set()
    for stage, notes in run.notes.stages.items():
        written: dict[Which, Record | None] = {"last": notes.last, "best": notes.best}
        for which, record in written.items():
            if record is not None:
                path = run.folder.model(stage, which)
                file = ModelFile.of(path, model, run.recipe, record.model_dump())
                if held_or_mended(file, stage, which, record, run.store.path(stage, record.iteration)):
                    sound.add(path)
    return sound


def _compare(run: Run, model: Segmenter) -> None:
    """Draw the stages' last models beside one another; for want of memory a run goes without, its scores complete."""
    path = run.folder.pictures / "comparison.png"
    try:
        sound = _sound_models(run, model)
        lasts: list[tuple[str, Path]] = [(stage, run.folder.model(stage, "last")) for stage in STAGES]
        models = [(stage, file) for stage, file in lasts if file in sound]
        comparison_grid(path, models, run.data.evaluation, run.recipe, run.passes, run.device)
    except UnreadableError as error:
        log.warning("%s: not drawn; %s", path, error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        log.warning("%s: not drawn; %s, and the run is complete without it", path, shortage(error))


def _finish(run: Run, name: str, record: RunRecord) -> Results:
    """Write results.json."""
    results: Results = {
        "recipe": name,
        "description": run.recipe.description,
        "seed": run.recipe.seed,
        "device": device_name(run.device),
        "ranks": run.ranks.size,
        "precision": run.passes.precision,
        **provenance(),
        "data": run.data.fingerprints(),
        "left_out": run.data.left_out(),
        "failed": run.notes.failed,
        "seconds": {stage: round(notes.seconds, 3) for stage, notes in run.notes.stages.items()},
        "checkpoints": {"written": run.notes.checkpoints, "seconds_stalled": round(run.notes.stalled, 3)},
        "resumed": len(record.history) - 1,
        "forced": record.forced(),
    }
    for stage, notes in run.notes.stages.items():
        assert notes.last is not None
        assert notes.best is not None
        last, best = notes.last.model_dump(), notes.best.model_dump()
        results[stage] = {**{key: last[key] for key in ("miou", "iou", "protocol")}, "last": last, "best": best}
        results[stage]["history"] = [one.model_dump() for one in notes.history]
        if notes.pseudo_labels:
            results[stage]["pseudo_labels"] = [one.model_dump() for one in notes.pseudo_labels]
    run.folder.write_results(results)
    return results
