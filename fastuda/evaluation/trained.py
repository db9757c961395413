"""A trained model to use: from a run's folder, a file of fastuda's, or released weights; with the recipe it needs."""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError

from fastuda.errors import FastudaError, UsageError
from fastuda.memory.out_of_memory import memory_told
from fastuda.model.build import read_model
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Segmenter
from fastuda.printable import on_one_line
from fastuda.recipe import Evaluation, Recipe
from fastuda.recipe.file import load_recipe, recipe_of
from fastuda.runs.folder import RunFolder
from fastuda.runtime.device import choose_device

_RELEASED_RECIPES = {19: "gta2cs-released", 16: "syn2cs"}


@dataclass(frozen=True)
class Trained:
    """A model in eval mode, and what it takes to use it."""

    model: Segmenter
    recipe: Recipe
    passes: Passes
    device: torch.device
    file: Path

    def augmented(self, *, flip: bool | None, scales: tuple[float, ...] | None) -> Trained:
        """The same model with test-time augmentation as said; None leaves the recipe's (`eval.flip`, `eval.scales`).

        Raises UsageError for a scale out of range.
        """
        changes = {name: value for name, value in (("flip", flip), ("scales", scales)) if value is not None}
        try:
            settings = Evaluation.model_validate({**self.recipe.eval.model_dump(), **changes})
        except ValidationError as error:
            raise UsageError(f"--scales: {error.errors()[0]['msg']}") from error
        return replace(self, recipe=self.recipe.model_copy(update={"eval": settings}))


def load_trained(
    run_or_weights: Path, *, stage: str = "adapted", which: str = "last", recipe: str | None = None, device: str | None
) -> Trained:
    """Load a run's `stage` (`adapted`, `source_only`) at `which` (`last`, `best`), or a weights file.

    fastuda's files carry their recipe. Released weights take `recipe`, or without one the preset of
    their class count (19: gta2cs-released, 16: syn2cs). Raises FastudaError when there is no such model.
    """
    file = _model_file(run_or_weights, stage, which)
    torch_device = choose_device(device)
    with memory_told("prediction", None, torch_device):
        model, imported = read_model(file, torch_device)
    if recipe is not None:
        found = load_recipe(recipe)
    elif "recipe" in imported.metadata:
        found = _own_recipe(imported.metadata["recipe"], file)
    elif model.num_classes in _RELEASED_RECIPES:
        found = load_recipe(_RELEASED_RECIPES[model.num_classes])
    else:
        raise FastudaError(
            f"{file}: these weights know {model.num_classes} classes and do not say which; name them with --recipe"
        )
    num_classes = len(found.classes.build())
    if num_classes != model.num_classes:
        raise FastudaError(
            f"{file}: the model has {model.num_classes} classes, the recipe {num_classes}; choose another --recipe"
        )
    found = found.model_copy(update={"model": found.model.model_copy(update={"input": imported.input})})
    return Trained(model, found, Passes.of(found, torch_device), torch_device, file)


def _own_recipe(text: str, file: Path) -> Recipe:
    """The recipe in a file's header; raises FastudaError, on one line, when it is none."""
    try:
        found = recipe_of(tomllib.loads(text), str(file))
        found.classes.build()
    except FastudaError as error:
        _, _, reason = str(error).partition(f"recipe {file}:")
        reason = "; ".join(line.strip() for line in (reason or str(error)).strip().splitlines())
    except RecursionError:
        reason = "tables in tables without end"
    except Exception as error:  # a stranger's text, through TOML and every check of a recipe
        reason = f"{type(error).__name__}: {error}"
    else:
        return found
    raise FastudaError(
        f"{file}: the recipe in its header (metadata `recipe`) cannot be used: {on_one_line(reason, 300)}; "
        "name the recipe with --recipe"
    )


def _model_file(path: Path, stage: str, which: str) -> Path:
    if stage not in ("adapted", "source_only"):
        raise UsageError(f"--stage {stage}: adapted or source_only")
    if which not in ("last", "best"):
        raise UsageError(f"--which {which}: last or best")
    try:
        is_folder = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        raise FastudaError(f"{path}: no such run folder or weights file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise FastudaError(f"{on_one_line(path, 1000)}: cannot be read: {reason}") from error
    if not is_folder:
        return path
    file = RunFolder(path).model(stage, which)
    try:
        if file.exists():
            return file
        known = sorted(one.name for one in file.parent.iterdir() if one.match("*-*.safetensors"))
    except FileNotFoundError:
        known = []
    except OSError as error:
        raise FastudaError(f"{file.parent}: cannot be looked into ({error.strerror})") from error
    there = f"there are {', '.join(known)}" if known else "it holds no evaluated model yet"
    raise FastudaError(f"{path}: no {file.name} in this run; {there}")
