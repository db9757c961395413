"""One stage of a run, warm-up or adaptation: iterations, evaluations, checkpoints (protocol rows 4, 21, 22)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fastuda.data.datasets import Datasets
from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.loading.failures import numbers
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.distributed.ranks import ALONE, Ranks
from fastuda.distributed.stopping import SharedStop
from fastuda.errors import FastudaError
from fastuda.evaluation.pseudo_labels import look_at_pseudo_labels
from fastuda.evaluation.scoring import EVALUATION_BATCH, scored
from fastuda.evaluation.target_statistics import gather_statistics
from fastuda.memory.estimate import TrainingWork
from fastuda.memory.out_of_memory import memory_told
from fastuda.method.state import TrainingState
from fastuda.metrics.pseudo_labels import PseudoLabelScores
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Optimizer, Recipe
from fastuda.recipe.paper import same_work
from fastuda.report.display import Display, StageProgress
from fastuda.runs.checkpoint.model_file import ModelFile
from fastuda.runs.checkpoint.notes import STAGES, Notes, PseudoLabelRecord, Record, StageName, StageNotes
from fastuda.runs.checkpoint.state_file import SavedState, restore_state
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runs.checkpoint.writer import CheckpointWriter
from fastuda.runs.folder import RunFolder
from fastuda.runtime.fast_path import FastPath
from fastuda.runtime.stop import StopAskedError, StoppedError, StopRequest
from fastuda.runtime.watchdog import Watchdog
from fastuda.training.log import RunLog
from fastuda.training.loop import Loop
from fastuda.training.readback import Readback, Reading

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


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
    ranks: Ranks = ALONE
    reference: Segmenter | None = None
    """The student's own start, frozen, where a term compares features with it."""
    unsaved: list[ModelFile] = field(default_factory=list)
    """Models that were scored and not yet written."""

    def __post_init__(self) -> None:
        self.stopping = SharedStop(self.ranks, self.stop)
        """The stop, as all ranks know it."""


@dataclass(frozen=True)
class Stage:
    """One of `source_only` and `adapted`."""

    name: StageName
    work: TrainingWork
    num_iterations: int
    optimizer: Optimizer


def run_stage(run: Run, stage: Stage, model: Segmenter, saved: SavedState | None) -> Segmenter:
    """Train one stage from `model`, or from where `saved` stopped; returns it with its averaged weights.

    A stage of no iterations is one evaluation, with whatever statistics that has.
    """
    if saved is not None and STAGES.index(stage.name) < STAGES.index(saved.stage):
        return model  # this stage was complete; the saved state is of the one after it
    with memory_told(stage.work, run.recipe, run.device):
        state = TrainingState.begin(
            model,
            stage.optimizer,
            stage.num_iterations,
            run.recipe.method.ema_decay,
            ema_rises=run.recipe.method.ema_rises,
            scaled=run.fast.scaled,
            flat=run.fast.flat_update,
            precision=run.fast.amp,
            reference=run.reference,
            ranks=run.ranks,
            distributed=run.recipe.distributed,
        )
    readback = Readback(state)
    if saved is not None and saved.stage == stage.name and run.ranks.first:
        with memory_told(stage.work, run.recipe, run.device):
            restore_state(saved, state)
        readback.reopen(saved.window, saved.window_sums())
    _share_state(run, state)
    start = int(state.iteration)
    notes = run.notes.stages.setdefault(stage.name, StageNotes())
    if stage.optimizer.ramp_up > stage.num_iterations:
        log.warning(
            "%s: the learning rate rises over %d iterations (ramp_up), and there are %d: it never gets to its value",
            *(stage.name, stage.optimizer.ramp_up, stage.num_iterations),
        )
    if start == 0 and notes.last is None:
        _save(run, stage, state, 0, readback)  # so that --resume works from the first moment
    elif _evaluates(run, stage, start) and (notes.last is None or notes.last.iteration != start):
        _pause(run, stage, state, start, readback, evaluates=True)  # the stop came before, or during, its evaluation
    if stage.num_iterations == 0:
        if notes.last is None:
            _pause(run, stage, state, 0, readback, evaluates=True)
        return state.student
    loop = Loop(state, run.data, run.recipe, run.passes, run.fast, stage.work, failed=run.notes.failed)

    state.student.train()
    every = run.recipe.train.checkpoint_every
    as_paper = stage.work == "adaptation" and same_work(run.recipe)
    with run.display.stage(stage.work, start, stage.num_iterations, as_paper=as_paper) as progress:
        for iteration in range(start, stage.num_iterations):
            readback.add(loop())
            run.watchdog.alive()
            done, stopped = iteration + 1, run.stopping.next()
            evaluates = _evaluates(run, stage, done)
            if evaluates or done % run.recipe.train.log_every == 0:
                readback.close(done, loop.take_waited())
            pauses = evaluates or stopped is not None or (every is not None and done % every == 0)
            for reading in readback.all() if pauses else readback.ready():
                _report(run, stage, reading, progress)
            if pauses:
                _share_failed(run, loop)
                _pause(run, stage, state, done, readback, evaluates=evaluates)
            run.checkpoints.check()
    state.student.load_state_dict(state.evaluation_model().state_dict())
    return state.student


def _share_state(run: Run, state: TrainingState) -> None:
    """Give every rank the first one's state, which alone has read weights and checkpoints."""
    run.ranks.broadcast_(state.tensors())
    state.follow_weights()
    if not run.ranks.alone:
        state.scaler.load_state_dict(run.ranks.shared(state.scaler.state_dict))


def _pause(run: Run, stage: Stage, state: TrainingState, done: int, readback: Readback, *, evaluates: bool) -> None:
    """Evaluate if it is time, and save; raises StoppedError when a stop was asked for, even in the evaluation."""
    if evaluates:
        try:
            _evaluate_average(run, stage, state, done)
        except StopAskedError:
            log.info("the evaluation was broken off; it comes first when the run goes on")
        readback.restart()
    stopped = run.stopping.now()
    if stopped is None:
        _save(run, stage, state, done, readback)
        return
    _refuse_nonfinite(run, stage, int(state.first_nonfinite))
    _save(run, stage, state, done, readback)
    run.checkpoints.wait()
    run.ranks.wait()  # none ends, and has the others ended by who started them, before all is saved
    again = run.folder.again(run.ranks.place)
    raise StoppedError(f"{stopped}: stopped at iteration {done} of the {stage.work}, everything saved; {again}")


def _share_failed(run: Run, loop: Loop) -> None:
    """Keep the samples that failed on any rank, and have them replaced on all."""
    for failed in run.ranks.gathered(loop.failed):
        run.notes.add_failed(failed)
    loop.learn_failed(run.notes.failed)


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
    images = run.recipe.train.batch_size * run.ranks.size
    every = run.recipe.train.evaluate_every or max(1, len(run.data.target) // images)
    return done == stage.num_iterations or done % every == 0


def _evaluate_average(run: Run, stage: Stage, state: TrainingState, iteration: int) -> None:
    """Evaluate the averaged model, after a look at what the teacher says (`eval.pseudo_labels`)."""
    looked = None
    if stage.work == "adaptation" and run.data.viewed_evaluation is not None:
        progress = run.task("Looking at pseudo-labels")
        looked = look_at_pseudo_labels(state, run.data.viewed_evaluation, run.recipe, run.passes, progress=progress)
    model = state.evaluation_model()
    if stage.work == "adaptation" and run.recipe.eval.batch_norm == "target":
        failed = numbers(run.data.target, run.notes.failed.get("target", {}))
        gather_statistics(model, run.data.target, run.recipe, run.passes, run.device, failed)
        run.ranks.broadcast_([*model.buffers()])  # every rank has gathered them, each to its own last bit
    evaluate_model(run, stage.name, stage.work, model, iteration, looked)


def evaluate_model(
    run: Run,
    stage: StageName,
    title: str,
    model: Segmenter,
    iteration: int,
    pseudo_labels: PseudoLabelScores | None = None,
) -> None:
    """Evaluate a model in eval mode; it is the stage's last and, if so, its best, to be written with the next save.

    What `pseudo_labels` were worth at the time is kept beside its scores.
    """
    share, threads = (run.ranks.rank, run.ranks.size), run.recipe.runtime.loader_threads
    loader = EvaluationLoader(run.data.evaluation, EVALUATION_BATCH, threads, run.device, share=share)
    by_protocol = scored(model, loader, run.recipe, run.passes, progress=run.task("Evaluating"), ranks=run.ranks)
    own = by_protocol[run.recipe.eval.protocol]
    mious = {protocol: scores.to_json()["miou"] for protocol, scores in by_protocol.items()}
    record = Record.model_validate({"iteration": iteration, **own.to_json(), "by_protocol": mious})

    notes = run.notes.stages.setdefault(stage, StageNotes())
    notes.add_score(record)
    if pseudo_labels is not None:
        notes.add_pseudo_labels(PseudoLabelRecord(iteration=iteration, **pseudo_labels.to_json()))
    files = {"last": record}
    if notes.best is None or record.miou > notes.best.miou:
        # The paper's "early stopping": chosen on the very images that it is scored on.
        notes.best = files["best"] = record.model_copy(update={"chosen_on": "evaluation set"})
    run.unsaved = [
        ModelFile.of(run.folder.model(stage, which), model, run.recipe, scores.model_dump())
        for which, scores in files.items()
    ]
    run.log.evaluation(stage, iteration, own, pseudo_labels)
    run.display.evaluated(title, iteration, own)


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
    if first < 0 or not run.ranks.first:  # all ranks know it, and one is enough to say so
        return
    names = _names_at(run, stage, first)
    run.checkpoints.wait()
    try:
        kept = run.store.newest_sound()
        good = f"the last good checkpoint, {kept.path.name} of iteration {kept.iteration}, is kept and was verified"
    except FastudaError as error:
        good = f"which checkpoint is the last good one could not be verified: {error}"
    table = "train" if stage.work == "adaptation" else "warmup"
    raise FastudaError(
        f"the loss was not finite at iteration {first + 1} of the {stage.work} (samples: {', '.join(names)}); {good}. "
        f"Lower the learning rate (--set {table}.optimizer.lr_backbone=…) or check these samples"
    )


def _names_at(run: Run, stage: Stage, iteration: int) -> list[str]:
    """Names of an iteration's samples; of several ranks each with its own."""
    names: list[str] = []
    adapts = stage.work == "adaptation"
    for rank in range(run.ranks.size):
        whose = "" if run.ranks.alone else f" of rank {rank}"
        for domain, (split, packed) in run.data.trained_on(adapts=adapts).items():
            failed = numbers(packed, run.notes.failed.get(split, {}))
            found = TrainingLoader.names_at(
                packed, domain, run.recipe, iteration, failed, rank=rank, num_ranks=run.ranks.size, adapts=adapts
            )
            names += [f"{name}{whose}" for name in found]
    return names
