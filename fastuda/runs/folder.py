"""A run's folder: which file is what, what state it is in, and how each file is written."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fastuda.distributed.place import Place
from fastuda.errors import FastudaError
from fastuda.files.disk import PART, append, make_folder, remove, sweep, sync_journal, write_atomic, write_json
from fastuda.files.lock import HOLDER, LOCK, held
from fastuda.files.paths import entries, is_folder
from fastuda.printable import on_one_line
from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runtime.stop import StoppedError

Standing = Literal["new", "half-made", "run", "foreign"]
"""new: nothing there, or an empty folder; half-made: begun, and ended before the first checkpoint; run: there is work
to go on from; foreign: something else."""
_HALF_WRITTEN = re.compile(rf"\..+\.\d+-\d+{re.escape(PART)}")
"""Names under which files are written before they have their own."""


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
            names = {entry.name for entry in self.path.iterdir() if not _is_passing(entry.name)}
            if not names:
                return "new"
            # A source-only model alone is what `--init` was scored with just before the end.
            if self.results.exists() or CheckpointStore(self.checkpoints).files() or self._adapted():
                return "run"
            files, folders = (self.recipe, self.begun, self.record, self.log), (self.tensorboard, self.checkpoints)
            if names - {path.name for path in (*files, *folders, self.pictures)}:
                return "foreign"
            # A recipe, or a folder such as `pictures`, may be anybody's: what `begin` makes first is not.
            return "half-made" if self._was_begun() or not self._holds_files() else "foreign"
        except OSError as error:
            raise FastudaError(
                f"{on_one_line(error.filename or self.path)}: cannot be looked into ({error.strerror})"
            ) from error

    def require(self, *, resume: bool) -> Standing:
        """What is there; FastudaError where a new run would write over work, or one that is to go on is none."""
        standing = self.standing()
        if standing == "foreign" and resume:
            raise FastudaError(f"{self.path}: no run to resume here, but other files; name the run's folder (--run)")
        if standing == "foreign":
            raise FastudaError(f"{self.path}: exists already and is no run; choose another run folder (--run)")
        if standing == "run" and not resume:
            raise FastudaError(
                f"{self.path}: exists already; continue it with --resume (in Python resume=True), or choose another "
                "run folder (--run)"
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

        begun.json comes first, so that whatever a kill leaves is known for fastuda's own, and no file of anybody else's
        is ever taken for that.

        Until there is a checkpoint, recipe.toml is the recipe as asked for, and begun.json has the recipe's `name` and
        the network that the adaptation starts from, so that `--resume` need not be told them again. Raises FastudaError
        for what cannot be deleted or written.
        """
        make_folder(self.path)
        self._write_beginning(None, None)
        remove(self.record)
        remove(self.log)
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        make_folder(self.checkpoints)
        make_folder(self.pictures)
        self.write_recipe(recipe)
        self._write_beginning(name, init)  # last: where it names a recipe, recipe.toml is this run's

    def goes_on(self) -> bool:
        """Whether `--resume` goes by the recipe in the folder: of a run, or of one that ended before it was one."""
        standing = self.standing()
        return standing == "run" or (standing == "half-made" and self.beginning() is not None)

    def beginning(self) -> tuple[str, Path | None] | None:
        """Recipe's name and `--init` of a run that was begun here; None where nothing tells."""
        try:
            content = json.loads(self.begun.read_text())
            name, init = content["name"], content["init"]
            return None if name is None else (str(name), None if init is None else Path(init))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def again(self, place: Place | None = None) -> str:
        """How to go on with a run that was begun here: by its own recipe, whatever it was begun with.

        `place` is this process's among several ranks, of which as many are needed again.
        """
        if place is not None and place.size > place.local_size:
            return f"continue with the same torchrun command and --resume, on {place.size} ranks again"
        recipe, run = (shlex.quote(str(path)) for path in (self.recipe, self.path))
        gpus = "" if place is None or place.size == 1 else f" --gpus {place.size}"
        return f"continue with `fastuda train {recipe} --run {run} --resume{gpus}` (in Python resume=True)"

    def longer(self) -> str:
        """How to train on from what a run has learnt: its schedule was made for its own length."""
        models = [self.model(stage, "last") for stage in ("adapted", "source_only")]
        model = next((model for model in models if model.exists()), models[0])
        return (
            "a run's learning rates were scheduled for its own length, so it cannot grow: --resume without "
            f"--iterations finishes it, and a new run goes on from its network with --init {model} (in Python init=)"
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
        write_json(self.results, results, indent=2, durable=True)

    def _adapted(self) -> bool:
        return any(self.model("adapted", which).exists() for which in ("last", "best"))

    def _write_beginning(self, name: str | None, init: Path | None) -> None:
        start = {"name": name, "init": None if init is None else str(init.absolute())}
        write_atomic(self.begun, json.dumps(start).encode() + b"\n", durable=True)

    def _was_begun(self) -> bool:
        """Whether begun.json is one that `begin` wrote; raises OSError when it cannot be read."""
        try:
            content = json.loads(self.begun.read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return False
        return isinstance(content, dict) and {"name", "init"} <= content.keys()

    def _holds_files(self) -> bool:
        """Whether any file lies in the folder or below, but for what passes; raises OSError for a locked one."""

        def refused(error: OSError) -> None:
            raise error

        walked = os.walk(self.path, onerror=refused)
        return any(not _is_passing(name) for _, _, files in walked for name in files)


def _is_passing(name: str) -> bool:
    """Whether it is what a process that works in a folder leaves there for a while, or for good if it is killed."""
    return name in (LOCK, HOLDER) or _HALF_WRITTEN.fullmatch(name) is not None


def latest_run(parent: Path, recipe_name: str) -> Path:
    """The newest run of a recipe among `parent`'s folders `NAME-DATE-TIME`; raises FastudaError when there is none."""
    wanted = re.compile(rf"{re.escape(recipe_name)}-\d{{8}}-\d{{6}}")
    runs = [path for path in (entries(parent) if is_folder(parent) else []) if wanted.fullmatch(path.name)]
    if not runs:
        raise FastudaError(f"{parent}: no run of {on_one_line(recipe_name)} to resume; name its folder with --run")
    return runs[-1]
