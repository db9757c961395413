"""A run's folder: which file is what, and how each is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastuda.data.cache import append, make_folder, write_atomic
from fastuda.errors import FastudaError, UsageError
from fastuda.recipe import Recipe
from fastuda.recipe_file import dump_recipe, load_recipe

_MAY_CHANGE = {"runtime", "data", "description"}
_SET_BY_WEIGHTS = {"input", "stride_on", "pool_padding", "aspp", "auxiliary"}


class RunFolder:
    """Paths below one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"
        self.log = path / "log.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.pictures = path / "pictures"
        self.results = path / "results.json"
        self.last_state = self.checkpoints / "last.state.safetensors"

    def model(self, stage: str, which: str) -> Path:
        """The evaluated model of a stage: `which` is last or best."""
        return self.checkpoints / f"{stage}-{which}.safetensors"

    @classmethod
    def check(cls, path: Path, *, resume: bool) -> None:
        """Raise FastudaError when there is a run where a new one is to be, or none where one is to go on."""
        if resume and not cls(path).recipe.exists():
            raise FastudaError(f"{path}: no run to resume here (no recipe.toml); start it without --resume")
        if not resume and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FastudaError(f"{path}: exists already; continue it with --resume, or choose another --run folder")

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunFolder:
        """A new folder with the resolved recipe in it. Raises FastudaError when there is one already."""
        cls.check(path, resume=False)
        folder = cls(path)
        make_folder(folder.checkpoints)
        make_folder(folder.pictures)
        folder.write_recipe(recipe)
        return folder

    @classmethod
    def reopen(cls, path: Path, recipe: Recipe) -> tuple[RunFolder, Recipe]:
        """An earlier run's folder, and its recipe with `runtime` and `data` as now asked for.

        Raises FastudaError when there is no run, UsageError when `recipe` differs from the run's own in
        anything else but what weights files have set.
        """
        cls.check(path, resume=True)
        folder = cls(path)
        saved = load_recipe(str(folder.recipe))
        changed = _differences(_asked_for(saved), _asked_for(recipe))
        if changed:
            lengths = [line for line in changed if line.split(":")[0].endswith(".iterations")]
            advice = f"\n{folder._longer()}" if lengths else ""
            raise UsageError(
                f"{path}: --resume with another recipe than the run's own:\n  " + "\n  ".join(changed) + advice
            )
        return folder, saved.model_copy(update={"runtime": recipe.runtime, "data": recipe.data})

    def _longer(self) -> str:
        """How to train on from what a run has learnt: its schedule was made for its own length."""
        models = [self.model(stage, "last") for stage in ("adapted", "source_only")]
        model = next((model for model in models if model.exists()), models[0])
        return (
            "a run's learning rates were scheduled for its own length, so it cannot grow: --resume without "
            f"--iterations finishes it, and a new run goes on from its network with --init {model}"
        )

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe."""
        write_atomic(self.recipe, dump_recipe(recipe).encode())

    def append_log(self, row: dict[str, Any]) -> None:
        """Add a row to log.jsonl."""
        append(self.log, json.dumps(row).encode() + b"\n")

    def write_results(self, results: dict[str, Any]) -> None:
        """Write results.json."""
        write_atomic(self.results, json.dumps(results, indent=2, ensure_ascii=False).encode() + b"\n")


def _asked_for(recipe: Recipe, *, of_weights: bool = False) -> dict[str, Any]:
    """The fields that make a run what it is; without those that weights files set unless `of_weights`."""
    left_out: dict[str, Any] = dict.fromkeys(_MAY_CHANGE, True)
    return recipe.model_dump(mode="json", exclude=left_out if of_weights else {**left_out, "model": _SET_BY_WEIGHTS})


def asked_differences(saved: Recipe, asked: Recipe) -> list[str]:
    """A line for every field in which two recipes, both as asked for, would give different runs."""
    return _differences(_asked_for(saved, of_weights=True), _asked_for(asked, of_weights=True))


def _differences(saved: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for key in saved.keys() | asked.keys():
        ours, theirs = saved.get(key), asked.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            lines += _differences(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            lines.append(f"{prefix}{key}: the run has {ours}, you ask for {theirs}")
    return sorted(lines)


def latest_run(parent: Path, recipe_name: str) -> Path:
    """The newest run of a recipe among `parent`'s folders `NAME-DATE-TIME`; raises FastudaError when there is none."""
    runs = sorted(parent.glob(f"{recipe_name}-[0-9]*"))
    if not runs:
        raise FastudaError(f"{parent}: no run of {recipe_name} to resume; name its folder with --run")
    return runs[-1]
