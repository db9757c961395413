"""A trained model from a run's folder, a file of fastuda's, or released weights, with the recipe that it needs."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

from fastuda.errors import FastudaError, UsageError
from fastuda.evaluation.model import Model
from fastuda.files.paths import user_path
from fastuda.memory.out_of_memory import memory_told
from fastuda.model.build import read_model
from fastuda.model.passes import Passes
from fastuda.printable import on_one_line
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.recipe.validation import recipe_of
from fastuda.runs.folder import RunFolder
from fastuda.runtime.device import choose_device

_RELEASED_RECIPES = {19: "gta2cs-released", 16: "syn2cs-released"}
_HOW = "(--recipe, in Python recipe=)"


def load(
    path: str | os.PathLike[str],
    *,
    stage: str = "adapted",
    which: str = "last",
    recipe: str | os.PathLike[str] | Recipe | None = None,
    device: str | None = None,
) -> Model:
    """The trained model of a run, or of a weights file.

    Args:
        path: a run's folder, or a file: fastuda's, or a released one of a known lineage.
        stage: of a run, `adapted` or `source_only`.
        which: of a run, `last`, or `best`, which was chosen on the evaluation split.
        recipe: a name, a TOML file or a Recipe in place of the file's own. Released weights carry none; without one
            they get the preset of their class count (19: gta2cs-released, 16: syn2cs-released).
        device: `cuda` or `cpu`; None: a GPU if there is one.

    Raises:
        FastudaError: there is no such model, or it cannot be used, and why.
    """
    file = _model_file(user_path(path), stage, which)
    torch_device = choose_device(device)
    with memory_told("prediction", None, torch_device):
        network, imported = read_model(file, torch_device)
    if recipe is not None:
        found = load_recipe(recipe)
    elif "recipe" in imported.metadata:
        found = _own_recipe(imported.metadata["recipe"], file)
    elif network.num_classes in _RELEASED_RECIPES:
        found = load_recipe(_RELEASED_RECIPES[network.num_classes])
    else:
        raise FastudaError(
            f"{file}: these weights know {network.num_classes} classes and do not say which; name their recipe {_HOW}"
        )
    num_classes = len(found.classes.build())
    if num_classes != network.num_classes:
        raise FastudaError(
            f"{file}: the model has {network.num_classes} classes, the recipe {num_classes}; choose another recipe "
            f"{_HOW}"
        )
    own = network.settings
    # A recipe chosen for its classes may be of another network.
    settings = found.model if own is None or own.kind == found.model.kind else own
    found = found.model_copy(update={"model": settings.model_copy(update={"input": imported.input})})
    return Model(network, found, Passes.of(found, torch_device), torch_device, file)


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
        f"name another {_HOW}"
    )


def _model_file(path: Path, stage: str, which: str) -> Path:
    if stage not in ("adapted", "source_only"):
        raise UsageError(f"stage {on_one_line(stage, 80)}: adapted or source_only")
    if which not in ("last", "best"):
        raise UsageError(f"which {on_one_line(which, 80)}: last or best")
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
