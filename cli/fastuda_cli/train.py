"""`fastuda train`: a whole run, from files to scores."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported

if TYPE_CHECKING:
    from fastuda.distributed.place import Place
    from fastuda.recipe import Recipe


def train(
    context: typer.Context,
    recipe: options.Recipe,
    source: options.Source = None,
    target: options.Target = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; default runs/RECIPE-DATE-TIME.", parser=options.path)
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="A trained network to adapt; skips the warm-up.", parser=options.path)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --run, or the recipe's latest run; from the start if need be.")
    ] = False,
    force: options.Force = False,
    max_time: options.MaxTime = None,
    gpus: options.Gpus = None,
    max_restarts: Annotated[
        int, typer.Option(help="With --gpus: start all anew from the last checkpoint when one dies, so often.", min=0)
    ] = 0,
    repeat: Annotated[
        int | None, typer.Option(help="Run this many seeds, from the recipe's on, and report the spread.", min=2)
    ] = None,
    workers: options.Workers = 1,
    iterations: Annotated[int | None, typer.Option(help="Adaptation iterations.", min=1)] = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """Train on the source, adapt to the target, score on the target.

    `fastuda train demo` needs no data: it draws two small domains and adapts one to the other.
    """
    with reported():
        import fastuda
        from fastuda.distributed.place import Place
        from fastuda.errors import UsageError
        from fastuda.recipe.file import recipe_name
        from fastuda.report.display import Display
        from fastuda.report.tables import score_table
        from fastuda.training.start import asked_recipe

        if workers > 1 and repeat is None:
            raise UsageError(f"--workers {workers}: for the runs of --repeat N; --gpus N puts one run on several GPUs")
        chosen = options.settings(set_, source, target)
        if iterations is not None:
            chosen.append(f"train.iterations={iterations}")
        name = recipe_name(recipe)
        place = Place.of_environment()
        if repeat is not None and (gpus is not None or place.size > 1):
            raise UsageError("--repeat gives each run one process; --workers K runs several at a time, without --gpus")
        if run is None:
            run = _usual_folder(name, place, resume=resume)
        if gpus is not None:
            _on_gpus(context, run, gpus, max_restarts, device, resume=resume)
            return
        if max_restarts:
            raise UsageError("--max-restarts goes with --gpus; under torchrun it is an option of torchrun's")
        if repeat is not None:
            deadline = options.deadline(max_time)
            resolved = asked_recipe(recipe, run, chosen, resume=resume, force=force)
            _repeat(resolved, run, name, repeat, workers, device, init, resume, force, deadline)
            return
        display = Display(console).unfailing()
        results = fastuda.train(
            recipe, run, settings=chosen, init=init, resume=resume, force=force, max_time=max_time,
            ends_process=True, device=device, display=display,
        )  # fmt: skip
        if place.rank > 0:
            return
        display.console.print(score_table(results))
        picture = run / "pictures" / "comparison.png"
        display.note(f"results: {run / 'results.json'}" + (f"\npictures: {picture}" if picture.exists() else ""))


def _usual_folder(name: str, place: Place, *, resume: bool) -> Path:
    """Where a run goes that nobody gave a folder; of several ranks what the first one thinks of is what holds."""
    from fastuda.runs.folder import latest_run

    if place.rank == 0 and (resume or place.num_restarts):
        return latest_run(Path("runs"), name)
    return Path("runs") / f"{name}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"


def _on_gpus(
    context: typer.Context, run: Path, gpus: int, max_restarts: int, device: str | None, *, resume: bool
) -> None:
    """The same command on several processes, in one folder."""
    from fastuda.errors import FastudaError, UsageError
    from fastuda.runs.folder import RunFolder
    from fastuda.runtime.stop import EXIT_STOPPED
    from fastuda_cli.launch import started

    folder = RunFolder(run)
    folder.require(resume=resume)
    try:
        started(context, gpus, device, max_restarts, run=run)
    except FastudaError as error:
        if folder.standing() != "run" or isinstance(error, UsageError):
            raise
        raise FastudaError(f"{error}; the run goes on from its last checkpoint with --run {run} --resume") from error
    if not folder.results.exists():  # stopped on request, as its first rank has said
        raise typer.Exit(EXIT_STOPPED)


def _repeat(
    recipe: Recipe,
    folder: Path,
    name: str,
    count: int,
    workers: int,
    device: str | None,
    init: Path | None,
    resume: bool,
    force: bool,
    deadline: float | None,
) -> None:
    from fastuda.errors import FastudaError
    from fastuda.report.display import Display
    from fastuda.runs.folder import RunFolder
    from fastuda.runtime.stop import StoppedError
    from fastuda.study.conduct import conduct
    from fastuda.study.plan import plan_repeats
    from fastuda_cli.spread import show_spread

    standing = RunFolder(folder).standing()  # FastudaError for what cannot be looked into
    if standing != "new" and not folder.is_dir():
        raise FastudaError(f"{folder}: a file, and no folder for runs; choose another --run folder")
    if standing != "new" and not resume:
        raise FastudaError(f"{folder}: exists already; continue it with --resume, or choose another --run folder")
    plan = plan_repeats(recipe, name, count, folder, init=init)
    again = f"--run {folder} --resume added to the command"
    display = Display(console).unfailing()
    try:
        content = conduct(
            plan, folder, "repeat", device=device, display=display, force=force, deadline=deadline, ends_process=True,
            workers=workers,
        )  # fmt: skip
    except StoppedError as error:
        raise StoppedError(f"{folder}: stopped, everything saved; {again} goes on") from error
    show_spread(display, content, folder, "repeat", again)
