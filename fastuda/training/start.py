"""A run as it is asked for: a recipe by name, by file or itself, settings, folders, a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fastuda.distributed.place import Place
from fastuda.errors import UsageError
from fastuda.files.paths import user_path
from fastuda.recipe import Recipe
from fastuda.recipe.file import AnyRecipe, load_recipe, recipe_name, with_folders
from fastuda.report.display import Display, display_of
from fastuda.runs.folder import RunFolder
from fastuda.runtime.stop import duration
from fastuda.training.run import Results
from fastuda.training.run import train as run_training


def train(
    recipe: AnyRecipe,
    run: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    target: str | os.PathLike[str] | None = None,
    settings: str | Sequence[str] = (),
    init: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    max_time: str | None = None,
    ends_process: bool = False,
    device: str | None = None,
    display: Display | bool = True,
) -> Results:
    """Train on the source, adapt to the target, score on the target; `load(run)` is then the trained model.

    Where torchrun started the process it is one of several ranks, which train together: all return the same, and the
    first alone reads and writes the run's folder and shows anything.

    Meanwhile signals (SIGINT, SIGTERM, SIGUSR1) stop the run, where it is called in the main thread, and torch's
    switches (determinism, TF32, cuDNN's benchmark mode) are the recipe's; afterwards both are again what they were.

    Args:
        recipe: a name (`gta2cs`, `gta2cs+cmix`), a TOML file's path, or a Recipe. With `resume` also the recipe.toml in
            the run's folder, whatever the run was begun with.
        run: the run's folder, which holds its checkpoints, logs, pictures and results.json.
        source: the source data set's folder, if the recipe does not say it.
        target: the target data set's.
        settings: recipe fields as `--set` takes them: `["method.tau=0.9", "train.iterations=1000"]`.
        init: a trained network to adapt, which takes the place of the warm-up.
        resume: go on with the run in that folder, by its own recipe and `settings`; from its beginning if need be.
        force: with `resume`, go on although recipe, data, code or libraries are others; the results say so.
        max_time: stop after this time, all saved: `8h`, `90m`, `08:00:00`.
        ends_process: let the run end this process as the command ends: at a second Ctrl-C (exit code 130), and when it
            makes no progress for `runtime.watchdog_minutes` (76). Without, a second Ctrl-C raises KeyboardInterrupt,
            and a run without progress logs a warning with the stack of every thread.
        device: `cuda` or `cpu`; None: a GPU if there is one.
        display: True: progress on the standard output; False: none; or where to show it.

    Returns:
        What is in the run's results.json: of each stage (`source_only`, `adapted`) `miou` and `iou` by class name, in
        percent, after the last iteration; those also at `last` and `best`; seed, versions, data, seconds.

    Raises:
        FastudaError: what the user can mend; HeldError when another process works in the folder, StoppedError when a
            signal (Ctrl-C, too) or `max_time` ended the run, everything saved; LostRankError when another rank is gone.
        KeyboardInterrupt: at a second Ctrl-C, at once; the last checkpoint stays, and `resume` goes on from it.
    """
    deadline = None if max_time is None else Place.of_environment().began() + duration(max_time)
    path = user_path(run)
    chosen = with_folders([settings] if isinstance(settings, str) else settings, source, target)
    name, named = _named(recipe, chosen, RunFolder(path), resume=resume)
    return run_training(
        asked_recipe(recipe, path, chosen, resume=resume, force=force),
        path,
        name=name,
        named=named,
        device=device,
        init=None if init is None else user_path(init),
        resume=resume,
        force=force,
        deadline=deadline,
        ends_process=ends_process,
        display=display_of(display),
    )


def _named(recipe: AnyRecipe, settings: Sequence[str], folder: RunFolder, *, resume: bool) -> tuple[str, Recipe | None]:
    """The recipe's name, and what it says before any setting; of a run's own recipe.toml the run's name, and None.

    Of a recipe that is none without its settings, as `own+oracle` without `target.labels`, what it says with them.
    """
    if resume and not isinstance(recipe, Recipe) and folder.goes_on():
        beginning = folder.beginning()
        if beginning is not None and os.path.realpath(user_path(recipe)) == os.path.realpath(folder.recipe):
            return beginning[0], None
    try:
        named = load_recipe(recipe)
    except UsageError:
        named = load_recipe(recipe, settings)
    return recipe_name(recipe), named


def asked_recipe(recipe: AnyRecipe, run: Path, settings: Sequence[str], *, resume: bool, force: bool) -> Recipe:
    """The recipe with its settings; with `resume` that of the run in the folder, so that nothing is said twice.

    Raises UsageError for a recipe or setting that is none, and for `force` without `resume`.
    """
    if force and not resume:
        raise UsageError(
            "--force goes on with a run although it is another one: give it with --resume (in Python resume=True)"
        )
    folder = RunFolder(run)
    return load_recipe(folder.recipe if resume and folder.goes_on() else recipe, settings)
