"""A whole run: data, warm-up, adaptation, scores, pictures (protocol rows 4, 21, 22)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastuda.batch_norm import gather_statistics
from fastuda.checkpoint.model_file import ModelFile
from fastuda.checkpoint.model_mend import Which, held_or_mended
from fastuda.checkpoint.notes import ADAPTED, SOURCE_ONLY, STAGES, Notes, Record, StageName, StageNotes
from fastuda.checkpoint.state_file import SavedState, require_fit, restore_state
from fastuda.checkpoint.store import CheckpointStore
from fastuda.checkpoint.writer import CheckpointWriter
from fastuda.comparison import comparison_grid
from fastuda.data.cache import cache_folder
from fastuda.data.evaluation_loader import EvaluationLoader
from fastuda.data.failures import numbers
from fastuda.data.layouts import data_root
from fastuda.data.sampling import DomainName
from fastuda.data.training_loader import TrainingLoader
from fastuda.datasets import Datasets, prepare_all, with_demo_data, with_demo_folders
from fastuda.display import Display, StageProgress
from fastuda.engine.loop import Loop
from fastuda.engine.memory import require_memory
from fastuda.engine.out_of_memory import is_out_of_memory, memory_told, shortage, shortage_told
from fastuda.engine.readback import Readback, Reading
from fastuda.errors import FastudaError, UnreadableError
from fastuda.evaluate import evaluate
from fastuda.fast_path import FastPath, declined
from fastuda.method.network import Passes
from fastuda.method.state import TrainingState
from fastuda.model.build import build_model, build_network
from fastuda.model.deeplab import DeepLabV2
from fastuda.paper import same_work
from fastuda.provenance import provenance
from fastuda.recipe import Optimizer, Recipe
from fastuda.recipe_file import require_text
from fastuda.resume import Request, begun, continued, require_same_data
from fastuda.run_folder import RunFolder
from fastuda.run_log import RunLog
from fastuda.run_record import RunRecord
from fastuda.runtime import choose_device, configure, device_name
from fastuda.stop import StopAskedError, StoppedError, StopRequest
from fastuda.watchdog import Watchdog

log = logging.getLogger(__name__)

Results = dict[str, Any]
Progress = Callable[[int, int], None]
EVALUATION_BATCH = 4


@dataclass
class Run:
    """What both stages of a run share."""

    recipe: Recipe
    folder: RunFolder
    data: Datasets
    device: torch.device
    passes: Passes
    fast: FastPath
    display: Display
    task: Callable[[str], Progress]
    log: RunLog
    stop: StopRequest
    watchdog: Watchdog
    store: CheckpointStore
    checkpoints: CheckpointWriter
    notes: Notes
    unsaved: list[ModelFile] = field(default_factory=list)
    """Models that were scored and not yet written."""


@dataclass(frozen=True)
class Stage:
    """One of `source_only` and `adapted`."""

    name: StageName
    title: str
    num_iterations: int
    optimizer: Optimizer
    reads_target: bool


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
    stop: StopRequest | None = None,
    display: Display,
) -> Results:
    """Run a recipe in the folder `path` and return what is then in its results.json.

    `name` is the recipe's, for the record, and `named` what it says before any setting. `init` starts the adaptation
    from a trained network and skips the warm-up; `resume` continues a stopped run, from the beginning if it has no
    checkpoint yet, and `force` continues it though recipe, data, code or libraries are others. Without adaptation
    iterations the run is source-only training, or with `init` a score of that network. `deadline`, of
    `time.monotonic`, ends it as a signal does. `stop` takes the place of both where a request goes beyond this run, as
    a study's does; it is entered already. One that comes when all is trained lets the run finish.

    Raises FastudaError for anything the user can mend, HeldError when another process works in the folder, and
    StoppedError when a signal or the deadline ended the run, everything saved.
    """
    display = display.unfailing()
    torch_device = choose_device(device)
    configure(recipe.runtime, torch_device)
    folder = RunFolder(path)
    for one in (recipe, with_demo_folders(recipe)):
        require_text(one)
    folder.require(resume=resume)  # before anything is made
    again = f"continue with --run {path} --resume"
    watchdog = Watchdog(recipe.runtime.watchdog_minutes, again)
    own: AbstractContextManager[StopRequest] = StopRequest(deadline) if stop is None else nullcontext(stop)
    with own as stop, folder.entered(), watchdog:
        request = Request(recipe, name, named, init, resume, force)
        try:
            with shortage_told("the run"):  # wherever nothing more is known of it
                return _train(request, folder, torch_device, display, stop, watchdog)
        except StopAskedError as asked:
            raise StoppedError(f"{asked} before the first checkpoint; nothing is lost, {again}") from asked


def _train(
    request: Request,
    folder: RunFolder,
    device: torch.device,
    display: Display,
    stop: StopRequest,
    watchdog: Watchdog,
) -> Results:
    def task(title: str) -> Progress:
        """A progress bar whose steps are signs of life, and that ends when a stop is asked for."""
        return watchdog.watching(stop.watching(display.task(title)))

    def look() -> None:
        """While something else is waited for: a sign of life, and the end of the wait when a stop is asked for."""
        watchdog.alive()
        stop.look()

    found = folder.require(resume=request.resume)  # again, now that nobody else can come between
    going_on = continued(request, folder) if found == "run" else None
    if going_on is None:
        if found == "half-made" or request.resume:
            log.info("%s: no checkpoint here yet, so the run starts from the beginning", folder.path)
        request = begun(request, folder)
        folder.begin(request.recipe, request.name, request.init)
    recipe = with_demo_data(going_on.recipe if going_on else request.recipe, task, look)
    for domain in (recipe.source, recipe.target):
        data_root(domain)
    require_memory(recipe, device, stop.look)
    fast = FastPath.of(recipe.runtime, device)
    if going_on:
        model = build_network(recipe)  # its weights are in the saved state
        optimizer = (recipe.warmup if going_on.saved.stage == SOURCE_ONLY else recipe.train).optimizer
        require_fit(going_on.saved, model, momenta=optimizer.momentum > 0 or fast.flat_update)
    else:
        model, recipe = build_model(recipe, cache_folder(recipe.data), request.init, look)
    data = prepare_all(recipe, task, look)
    if going_on:
        record, saved, notes = require_same_data(going_on, request, recipe, data), going_on.saved, going_on.saved.notes
        forced = going_on.forced
    else:
        record, saved, forced = RunRecord(identity=request.identity(recipe, data)), None, []
        notes = Notes(warmup=request.init is None and recipe.warmup.iterations > 0)
    if forced or not going_on:
        folder.write_recipe(recipe)
    for line in declined(recipe.runtime, device):
        log.warning(line)
    with memory_told("adaptation", recipe, device):
        model = fast.place(model, device)
    since = (saved.stage, saved.iteration) if saved else None
    record.begin(device_name(device), since, forced)
    record.write(folder.record)

    passes = Passes.of(recipe, device)
    store = CheckpointStore(folder.checkpoints, recipe.train.checkpoints_kept)
    with RunLog(folder, since, notes.rows) as run_log, CheckpointWriter(store, folder.sync_log) as checkpoints:
        run = Run(
            recipe, folder, data, device, passes, fast, display, task, run_log, stop, watchdog, store, checkpoints,
            notes,
        )  # fmt: skip
        if saved is not None:
            _sound_models(run, model)  # while there may be a checkpoint to write one anew from
        elif request.init is not None:
            _score(run, SOURCE_ONLY, "--init", model.eval(), 0)
        for stage in _stages(recipe, notes.warmup):
            model = _run_stage(run, stage, model, saved)
        checkpoints.wait()
        for file in run.unsaved:  # `--init` without a stage: a score of that network
            file.write(model.state_dict())
        _compare(run, model)
        return _finish(run, request.name, record)


def _stages(recipe: Recipe, warmup: bool) -> list[Stage]:
    stages = []
    if warmup:
        stages.append(Stage(SOURCE_ONLY, "warm-up", recipe.warmup.iterations, recipe.warmup.optimizer, False))
    if recipe.train.iterations > 0:
        stages.append(Stage(ADAPTED, "adaptation", recipe.train.iterations, recipe.train.optimizer, True))
    return stages


def _run_stage(run: Run, stage: Stage, model: DeepLabV2, saved: SavedState | None) -> DeepLabV2:
    """Train one stage from `model`, or from where `saved` stopped; returns it with its averaged weights."""
    if saved is not None and STAGES.index(stage.name) < STAGES.index(saved.stage):
        return model  # this stage was complete; the saved state is of the one after it
    with memory_told("adaptation" if stage.reads_target else "warm-up", run.recipe, run.device):
        state = TrainingState.begin(
            model,
            stage.optimizer,
            stage.num_iterations,
            run.recipe.method.ema_decay,
            scaled=run.fast.scaled,
            flat=run.fast.flat_update,
            precision=run.fast.amp,
        )
    readback = Readback(state)
    if saved is not None and saved.stage == stage.name:
        with memory_told("adaptation" if stage.reads_target else "warm-up", run.recipe, run.device):
            restore_state(saved, state)
        readback.reopen(saved.window, saved.window_sums())
    start = int(state.iteration)
    notes = run.notes.stages.setdefault(stage.name, StageNotes())
    if start == 0:
        _save(run, stage, state, 0, readback)  # so that --resume works from the first moment
    elif _evaluates(run, stage, start) and (notes.last is None or notes.last.iteration != start):
        _pause(run, stage, state, start, readback, evaluates=True)  # the stop came before, or during, its evaluation
    loop = Loop(state, run.data, run.recipe, run.passes, run.fast, adapts=stage.reads_target, failed=run.notes.failed)

    state.student.train()
    every = run.recipe.train.checkpoint_every
    as_paper = stage.reads_target and same_work(run.recipe)
    with run.display.stage(stage.title, start, stage.num_iterations, as_paper=as_paper) as progress:
        for iteration in range(start, stage.num_iterations):
            readback.add(loop())
            run.watchdog.alive()
            done = iteration + 1
            evaluates = _evaluates(run, stage, done)
            if evaluates or done % run.recipe.train.log_every == 0:
                readback.close(done, loop.take_waited())
            pauses = evaluates or run.stop.received is not None or (every is not None and done % every == 0)
            for reading in readback.all() if pauses else readback.ready():
                _report(run, stage, reading, progress)
            if pauses:
                run.notes.add_failed(loop.failed)
                _pause(run, stage, state, done, readback, evaluates=evaluates)
            run.checkpoints.check()
    state.student.load_state_dict(state.evaluation_model().state_dict())
    return state.student


def _pause(run: Run, stage: Stage, state: TrainingState, done: int, readback: Readback, *, evaluates: bool) -> None:
    """Evaluate if it is time, and save; raises StoppedError when a stop was asked for, even in the evaluation."""
    if evaluates:
        try:
            _evaluate_stage(run, stage, state, done)
        except StopAskedError:
            log.info("the evaluation was broken off; it comes first when the run goes on")
        readback.restart()
    if run.stop.received is None:
        _save(run, stage, state, done, readback)
        return
    _refuse_nonfinite(run, stage, int(state.first_nonfinite))
    _save(run, stage, state, done, readback)
    run.checkpoints.wait()
    raise StoppedError(
        f"{run.stop.received}: stopped at iteration {done} of the {stage.title}, everything saved; "
        f"continue with --run {run.folder.path} --resume"
    )


def _report(run: Run, stage: Stage, reading: Reading, progress: StageProgress) -> None:
    """Show and keep what a window of iterations was like; refuse one whose loss was not finite."""
    _refuse_nonfinite(run, stage, reading.first_nonfinite)
    notes = run.notes.stages[stage.name]
    notes.seconds += reading.seconds
    run.log.training(stage.name, reading)
    miou = None if notes.last is None else notes.last.miou
    progress.advance(reading.iteration, reading.losses, reading.iterations_per_second, miou)


def _evaluates(run: Run, stage: Stage, done: int) -> bool:
    """Every `train.evaluate_every` iterations, or one pass over the target images, and at the end (protocol row 21)."""
    every = run.recipe.train.evaluate_every or max(1, len(run.data.target) // run.recipe.train.batch_size)
    return done == stage.num_iterations or done % every == 0


def _evaluate_stage(run: Run, stage: Stage, state: TrainingState, iteration: int) -> None:
    """Score the averaged model."""
    model = state.evaluation_model()
    if stage.reads_target and run.recipe.eval.batch_norm == "target":
        failed = numbers(run.data.target, run.notes.failed.get("target", {}))
        gather_statistics(model, run.data.target, run.recipe, run.passes, run.device, failed)
    _score(run, stage.name, stage.title, model, iteration)


def _score(run: Run, stage: StageName, title: str, model: DeepLabV2, iteration: int) -> None:
    """Score a model in eval mode; it is the stage's last and, if it is, its best, to be written with the next save."""
    loader = EvaluationLoader(run.data.evaluation, EVALUATION_BATCH, run.recipe.runtime.loader_threads, run.device)
    by_protocol = evaluate(model, loader, run.recipe, run.passes, progress=run.task("Evaluating"))
    own = by_protocol[run.recipe.eval.protocol]
    mious = {protocol: scores.to_json()["miou"] for protocol, scores in by_protocol.items()}
    record = Record.model_validate({"iteration": iteration, **own.to_json(), "by_protocol": mious})

    notes = run.notes.stages.setdefault(stage, StageNotes())
    notes.last = record
    files = {"last": record}
    if notes.best is None or record.miou > notes.best.miou:
        # The paper's "early stopping": chosen on the very images that it is scored on.
        notes.best = files["best"] = record.model_copy(update={"chosen_on": "evaluation set"})
    run.unsaved = [
        ModelFile.of(run.folder.model(stage, which), model, run.recipe, scores.model_dump())
        for which, scores in files.items()
    ]
    run.log.evaluation(stage, iteration, own)
    run.display.scored(title, iteration, own)


def _save(run: Run, stage: Stage, state: TrainingState, iteration: int, readback: Readback) -> None:
    """Begin to write a checkpoint, and the models that were scored since the last one."""
    notes = run.notes.model_copy(deep=True)
    notes.checkpoints += 1
    notes.rows = run.log.rows
    notes.stages[stage.name].seconds += readback.open_seconds()
    stalled = run.checkpoints.write(
        state, stage.name, iteration, notes, window=readback.open_window(), models=run.unsaved
    )
    run.unsaved = []
    run.notes.checkpoints, run.notes.stalled = notes.checkpoints, run.notes.stalled + stalled


def _refuse_nonfinite(run: Run, stage: Stage, first: int) -> None:
    if first < 0:
        return
    names = _names_at(run, "source", first)
    if stage.reads_target:
        names += _names_at(run, "target", first)
    run.checkpoints.wait()
    try:
        kept = run.store.newest_sound()
        good = f"the last good checkpoint, {kept.path.name} of iteration {kept.iteration}, is kept and was verified"
    except FastudaError as error:
        good = f"which checkpoint is the last good one could not be verified: {error}"
    table = "train" if stage.reads_target else "warmup"
    raise FastudaError(
        f"the loss was not finite at iteration {first + 1} of the {stage.title} (samples: {', '.join(names)}); {good}. "
        f"Lower the learning rate (--set {table}.optimizer.lr_backbone=…) or check these samples"
    )


def _names_at(run: Run, domain: DomainName, iteration: int) -> list[str]:
    packed = run.data.source if domain == "source" else run.data.target
    failed = numbers(packed, run.notes.failed.get(domain, {}))
    return TrainingLoader.names_at(packed, domain, run.recipe, iteration, failed)


def _sound_models(run: Run, model: DeepLabV2) -> set[Path]:
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


def _compare(run: Run, model: DeepLabV2) -> None:
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
    run.folder.write_results(results)
    return results
