"""A run's folder: which file is what, what state it is in, and how each file is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fastuda.checkpoint.store import CheckpointStore
from fastuda.disk import PART, append, make_folder, sweep, sync_journal, write_atomic, write_failure
from fastuda.errors import FastudaError
from fastuda.lock import HOLDER, LOCK, held
from fastuda.recipe import Recipe
from fastuda.recipe_file import dump_recipe
from fastuda.stop import StoppedError

Standing = Literal["new", "half-made", "run", "foreign"]
"""new: nothing there, or an empty folder; half-made: begun, and ended before the first checkpoint; run: there is work
to go on from; foreign: something else."""


class RunFolder:
    """Paths below one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"
        self.begun = path / "begun.json"
        self.record = path / "run.json"
        self.log = path / "log.jsonl"
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.pictures = path / "pictures"
        self.results = path / "results.json"

    def model(self, stage: str, which: str) -> Path:
        """The evaluated model of a stage: `which` is last or best."""
        return self.checkpoints / f"{stage}-{which}.safetensors"

    def standing(self) -> Standing:
        """What is there. Raises FastudaError when it cannot be looked at."""
        try:
            if not self.path.exists() and not self.path.is_symlink():
                return "new"
            if not self.path.is_dir():
                return "foreign"
            entries = {entry.name for entry in self.path.iterdir()} - {LOCK, HOLDER}
        except OSError as error:
            raise FastudaError(f"{self.path}: cannot be looked into ({error.strerror})") from error
        if not entries:
            return "new"
        # A source-only model alone is what `--init` was scored with just before the end.
        if self.results.exists() or CheckpointStore(self.checkpoints).files() or self._adapted():
            return "run"
        files, folders = (self.recipe, self.begun, self.record, self.log), (self.tensorboard, self.checkpoints)
        ours = {path.name for path in (*files, *folders, self.pictures)}
        foreign = [name for name in entries if name not in ours and not name.endswith(PART)]
        # A folder such as `pictures` alone may be anybody's: one that a run began holds its recipe, or no file at all.
        begun = self.recipe.exists() or not any(
            path.is_file() for path in self.path.rglob("*") if path.name not in (LOCK, HOLDER)
        )
        return "half-made" if begun and not foreign else "foreign"

    def require(self, *, resume: bool) -> Standing:
        """What is there; FastudaError where a new run would write over work, or one that is to go on is none."""
        standing = self.standing()
        if standing == "foreign" and resume:
            raise FastudaError(f"{self.path}: no run to resume here, but other files; name the run's folder with --run")
        if standing == "foreign" or (standing == "run" and not resume):
            raise FastudaError(
                f"{self.path}: exists already; continue it with --resume, or choose another --run folder"
            )
        return standing

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Hold the folder, made if need be, against other processes; without what killed ones left half-written.

        Raises HeldError when another run is at work here. A folder that was made for a run that failed before its first
        checkpoint is not left behind; after a stop it is, to be gone on with.
        """
        made = not self.path.exists()
        make_folder(self.path)
        with held(self.path, "training", wait=False):
            for folder in (self.path, self.checkpoints, self.pictures):
                sweep(folder)
            try:
                yield
            except StoppedError:
                raise
            except FastudaError:
                if made and self.standing() in ("new", "half-made"):
                    shutil.rmtree(self.path, ignore_errors=True)
                raise

    def begin(self, recipe: Recipe, name: str, init: Path | None = None) -> None:
        """Make the folder a run's: what an earlier one left before its first checkpoint goes, what is asked for comes.

        Until there is a checkpoint, recipe.toml is the recipe as asked for, and begun.json has the recipe's `name` and
        the network that the adaptation starts from, so that `--resume` need not be told them again. Raises FastudaError
        for what cannot be deleted or written.
        """
        for path in (self.begun, self.record, self.log):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise write_failure(path, error) from error
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        make_folder(self.checkpoints)
        make_folder(self.pictures)
        self.write_recipe(recipe)
        # Last: where it is, the recipe is this run's.
        start = {"name": name, "init": None if init is None else str(init.absolute())}
        write_atomic(self.begun, json.dumps(start).encode() + b"\n", durable=True)

    def goes_on(self) -> bool:
        """Whether `--resume` goes by the recipe in the folder: of a run, or of one that ended before it was one."""
        standing = self.standing()
        return standing == "run" or (standing == "half-made" and self.beginning() is not None)

    def beginning(self) -> tuple[str, Path | None] | None:
        """Recipe's name and `--init` of a run that was begun here; None where nothing tells."""
        try:
            content = json.loads(self.begun.read_text())
            return str(content["name"]), None if content["init"] is None else Path(content["init"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def longer(self) -> str:
        """How to train on from what a run has learnt: its schedule was made for its own length."""
        models = [self.model(stage, "last") for stage in ("adapted", "source_only")]
        model = next((model for model in models if model.exists()), models[0])
        return (
            "a run's learning rates were scheduled for its own length, so it cannot grow: --resume without "
            f"--iterations finishes it, and a new run goes on from its network with --init {model}"
        )

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe."""
        write_atomic(self.recipe, dump_recipe(recipe).encode(), durable=True)

    def append_log(self, row: dict[str, Any]) -> None:
        """Add a row to log.jsonl."""
        append(self.log, json.dumps(row).encode() + b"\n")

    def sync_log(self) -> None:
        """Make the rows of log.jsonl durable; FastudaError when the disk refuses."""
        sync_journal(self.log)

    def write_results(self, results: dict[str, Any]) -> None:
        """Write results.json."""
        write_atomic(self.results, json.dumps(results, indent=2, ensure_ascii=False).encode() + b"\n", durable=True)

    def _adapted(self) -> bool:
        return any(self.model("adapted", which).exists() for which in ("last", "best"))


def latest_run(parent: Path, recipe_name: str) -> Path:
    """The newest run of a recipe among `parent`'s folders `NAME-DATE-TIME`; raises FastudaError when there is none."""
    runs = sorted(parent.glob(f"{recipe_name}-[0-9]*"))
    if not runs:
        raise FastudaError(f"{parent}: no run of {recipe_name} to resume; name its folder with --run")
    return runs[-1]
