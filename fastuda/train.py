"""A whole run: data, warm-up, adaptation, scores, pictures (protocol rows 4, 21, 22)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fastuda.batch_norm import gather_statistics
from fastuda.checkpoint import SavedState, read_state, restore_state, save_model, save_state
from fastuda.comparison import comparison_grid
from fastuda.data.cache import cache_folder
from fastuda.data.evaluation_loader import EvaluationLoader
from fastuda.data.layouts import data_root
from fastuda.data.training_loader import TrainingLoader
from fastuda.datasets import Datasets, prepare_all, with_demo_data
from fastuda.display import Display, StageProgress
from fastuda.engine.loop import Loop
from fastuda.engine.memory import require_memory
from fastuda.engine.readback import Readback, Reading
from fastuda.errors import FastudaError, UsageError
from fastuda.evaluate import evaluate
from fastuda.fast_path import FastPath, declined
from fastuda.method.network import Passes
from fastuda.method.state import TrainingState
from fastuda.model.build import build_model, build_network
from fastuda.model.deeplab import DeepLabV2
from fastuda.paper import same_work
from fastuda.provenance import provenance
from fastuda.recipe import Optimizer, Recipe
from fastuda.run_folder import RunFolder
from fastuda.run_log import RunLog
from fastuda.runtime import StoppedError, StopRequest, choose_device, configure, device_name

log = logging.getLogger(__name__)

Results = dict[str, Any]
EVALUATION_BATCH = 4
SOURCE_ONLY, ADAPTED = "source_only", "adapted"


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
    log: RunLog
    stop: StopRequest
    warmup: bool = True
    """Whether the run has a warm-up stage; kept in every checkpoint, as is `stages`."""
    stages: dict[str, Results] = field(default_factory=dict)
    """Scores and seconds of each stage so far, by name."""


@dataclass(frozen=True)
class Stage:
    """One of `source_only` and `adapted`."""

    name: str
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
    display: Display,
) -> Results:
    """Run a recipe in the folder `path` and return what is then in its results.json.

    `name` is the recipe's, for the record. `init` starts the adaptation from a trained network and
    skips the warm-up; `resume` continues a stopped run. Without adaptation iterations the run is source-only
    training, or with `init` a score of that network. Raises FastudaError for anything the user
    can mend, StoppedError when Ctrl-C or SIGTERM ended the run with its state saved.
    """
    if resume and init is not None:
        raise UsageError("--init starts a run and --resume continues one: give one of them")
    torch_device = choose_device(device)
    configure(recipe.runtime, torch_device)
    RunFolder.check(path, resume=resume)  # before the work that would be for nothing
    recipe = with_demo_data(recipe, display.task)
    for domain in (recipe.source, recipe.target):
        data_root(domain)
    require_memory(recipe, torch_device)
    saved = None
    if resume:
        folder, recipe = RunFolder.reopen(path, recipe)
        saved = read_state(folder.last_state)
        model = build_network(recipe)  # its weights are in the saved state
    else:
        model, recipe = build_model(recipe, cache_folder(recipe.data), init)
    data = prepare_all(recipe, display.task)
    if not resume:
        folder = RunFolder.create(path, recipe)
    for line in declined(recipe.runtime, torch_device):
        log.warning(line)
    fast = FastPath.of(recipe.runtime, torch_device)
    model = fast.place(model, torch_device)

    passes = Passes.of(recipe, torch_device)
    with StopRequest() as stop, RunLog(folder) as run_log:
        run = Run(recipe, folder, data, torch_device, passes, fast, display, run_log, stop)
        run.warmup = init is None and recipe.warmup.iterations > 0
        if saved is not None:
            run.stages, run.warmup = saved.notes["stages"], saved.notes["warmup"]
        elif init is not None:
            _score(run, SOURCE_ONLY, "--init", model.eval(), 0)
        for stage in _stages(recipe, run.warmup):
            model = _run_stage(run, stage, model, saved)
        return _finish(run, name)


def _stages(recipe: Recipe, warmup: bool) -> list[Stage]:
    stages = []
    if warmup:
        stages.append(Stage(SOURCE_ONLY, "warm-up", recipe.warmup.iterations, recipe.warmup.optimizer, False))
    if recipe.train.iterations > 0:
        stages.append(Stage(ADAPTED, "adaptation", recipe.train.iterations, recipe.train.optimizer, True))
    return stages


def _run_stage(run: Run, stage: Stage, model: DeepLabV2, saved: SavedState | None) -> DeepLabV2:
    """Train one stage from `model`, or from where `saved` stopped; returns it with its averaged weights."""
    state = TrainingState.begin(
        model,
        stage.optimizer,
        stage.num_iterations,
        run.recipe.method.ema_decay,
        scaled=run.fast.scaled,
        flat=run.fast.flat_update,
        precision=run.fast.amp,
    )
    resumed = saved is not None and saved.stage == stage.name
    if saved is not None and resumed:
        restore_state(saved, state, run.folder.last_state)
    elif saved is not None and stage.name in run.stages:
        return model  # this stage was complete; the saved state is of the one after it
    start = int(state.iteration)
    run.stages.setdefault(stage.name, {"seconds": 0.0})
    if start == 0:
        _save(run, stage, state)  # so that --resume works from the first moment
    loop = Loop(state, run.data, run.recipe, run.passes, run.fast, adapts=stage.reads_target)

    state.student.train()
    readback = Readback(state)
    as_paper = stage.reads_target and same_work(run.recipe)
    with run.display.stage(stage.title, start, stage.num_iterations, as_paper=as_paper) as progress:
        for iteration in range(start, stage.num_iterations):
            readback.add(loop())
            done = iteration + 1
            evaluated = done == stage.num_iterations or done % _evaluation_interval(run) == 0
            pauses = evaluated or run.stop.received is not None
            if pauses or done % run.recipe.train.log_every == 0:
                readback.close(done, loop.take_waited())
            for reading in readback.all() if pauses else readback.ready():
                _report(run, stage, reading, progress)
            if evaluated:
                _evaluate_stage(run, stage, state, done)
                readback.restart()
            if run.stop.received:
                _save(run, stage, state)
                raise StoppedError(
                    f"{run.stop.received}: stopped at iteration {done} of the {stage.title}, everything saved; "
                    f"continue with --run {run.folder.path} --resume"
                )
    state.student.load_state_dict(state.evaluation_model().state_dict())
    return state.student


def _report(run: Run, stage: Stage, reading: Reading, progress: StageProgress) -> None:
    """Show and keep what a window of iterations was like; refuse one whose loss was not finite."""
    _refuse_nonfinite(run, stage, reading.first_nonfinite)
    notes = run.stages[stage.name]
    notes["seconds"] += reading.seconds
    rate = reading.iterations_per_second
    run.log.training(stage.name, reading)
    progress.advance(reading.iteration, reading.losses, rate, notes.get("last"))


def _evaluation_interval(run: Run) -> int:
    """`train.evaluate_every`, or one pass over the target images (protocol row 21)."""
    return run.recipe.train.evaluate_every or max(1, len(run.data.target) // run.recipe.train.batch_size)


def _evaluate_stage(run: Run, stage: Stage, state: TrainingState, iteration: int) -> None:
    """Score the averaged model and save the state."""
    model = state.evaluation_model()
    if stage.reads_target and run.recipe.eval.batch_norm == "target":
        gather_statistics(model, run.data.target, run.recipe, run.passes, run.device)
    _score(run, stage.name, stage.title, model, iteration)
    _save(run, stage, state)


def _score(run: Run, stage: str, title: str, model: DeepLabV2, iteration: int) -> None:
    """Score a model in eval mode, keep it as the stage's last and, if it is, as its best."""
    loader = EvaluationLoader(run.data.evaluation, EVALUATION_BATCH, run.recipe.runtime.loader_threads, run.device)
    by_protocol = evaluate(model, loader, run.recipe, run.passes, progress=run.display.task("Evaluating"))
    own = by_protocol[run.recipe.eval.protocol]
    record = {"iteration": iteration, **own.to_json()}
    record["by_protocol"] = {protocol: scores.to_json()["miou"] for protocol, scores in by_protocol.items()}

    notes = run.stages.setdefault(stage, {"seconds": 0.0})
    notes["last"] = record
    save_model(run.folder.model(stage, "last"), model, run.recipe, record)
    if "best" not in notes or (own.miou > notes["best"]["miou"]):
        # The paper's "early stopping": chosen on the very images that it is scored on.
        notes["best"] = {**record, "chosen_on": "evaluation set"}
        save_model(run.folder.model(stage, "best"), model, run.recipe, notes["best"])
    run.log.evaluation(stage, iteration, own)
    run.display.scored(title, iteration, own)


def _save(run: Run, stage: Stage, state: TrainingState) -> None:
    save_state(run.folder.last_state, state, stage.name, {"stages": run.stages, "warmup": run.warmup})


def _refuse_nonfinite(run: Run, stage: Stage, first: int) -> None:
    if first < 0:
        return
    names = TrainingLoader.names_at(run.data.source, "source", run.recipe, first)
    if stage.reads_target:
        names += TrainingLoader.names_at(run.data.target, "target", run.recipe, first)
    kept = run.stages[stage.name].get("last", {"iteration": 0})
    table = "train" if stage.reads_target else "warmup"
    raise FastudaError(
        f"the loss was not finite at iteration {first + 1} of the {stage.title} (samples: {', '.join(names)}); "
        f"the last good checkpoint, of iteration {kept['iteration']}, is kept. "
        f"Lower the learning rate (--set {table}.optimizer.lr_backbone=…) or check these samples"
    )


def _finish(run: Run, name: str) -> Results:
    """Pictures and results.json."""
    models = [
        (stage, run.folder.model(stage, "last"))
        for stage in (SOURCE_ONLY, ADAPTED)
        if run.folder.model(stage, "last").exists()
    ]
    comparison_grid(
        run.folder.pictures / "comparison.png", models, run.data.evaluation, run.recipe, run.passes, run.device
    )
    results: Results = {
        "recipe": name,
        "description": run.recipe.description,
        "seed": run.recipe.seed,
        "device": device_name(run.device),
        **provenance(),
        "data": run.data.fingerprints(),
        "left_out": run.data.left_out(),
        "seconds": {stage: round(notes["seconds"], 3) for stage, notes in run.stages.items()},
    }
    for stage, notes in run.stages.items():
        headline = {key: notes["last"][key] for key in ("miou", "iou", "protocol")}
        results[stage] = {**headline, "last": notes["last"], "best": notes["best"]}
    run.folder.write_results(results)
    return results
