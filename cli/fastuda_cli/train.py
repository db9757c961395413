"""`fastuda train`: a whole run, from files to scores."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported

if TYPE_CHECKING:
    from fastuda.recipe import Recipe


def train(
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
        from fastuda.errors import UsageError
        from fastuda.recipe.file import recipe_name
        from fastuda.report.display import Display
        from fastuda.report.tables import score_table
        from fastuda.runs.folder import latest_run
        from fastuda.training.start import asked_recipe

        if workers > 1 and repeat is None:
            raise UsageError(f"--workers {workers}: for the runs of --repeat N; one run is one process")
        chosen = options.settings(set_, source, target)
        if iterations is not None:
            chosen.append(f"train.iterations={iterations}")
        name = recipe_name(recipe)
        if run is None:
            started = datetime.now().strftime("%Y%m%d-%H%M%S")
            run = latest_run(Path("runs"), name) if resume else Path("runs") / f"{name}-{started}"
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
        display.console.print(score_table(results))
        picture = run / "pictures" / "comparison.png"
        display.note(f"results: {run / 'results.json'}" + (f"\npictures: {picture}" if picture.exists() else ""))


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
