"""A run's folder: what is there, what may be begun in it, who is in it, and how it is found again by name."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastuda.runs.folder as run_folder_module
from fastuda.errors import FastudaError
from fastuda.files.lock import HeldError
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runs.folder import RunFolder, latest_run
from fastuda.runtime.stop import StoppedError


def test_a_new_folder_holds_the_resolved_recipe(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe("seed=9")
    folder = RunFolder(tmp_path / "runs" / "new")
    with folder.entered():
        folder.begin(recipe, "demo")
    assert load_recipe(str(folder.recipe)) == recipe
    assert folder.checkpoints.is_dir()
    assert folder.pictures.is_dir()


def fails(path: Path, recipe: Recipe, error: FastudaError, init: Path | None = None) -> None:
    """A run that ends before its first checkpoint."""
    with RunFolder(path).entered():
        RunFolder(path).begin(recipe, "demo", init)
        raise error


def test_a_folder_made_for_a_run_that_fails_at_once_is_not_left_behind(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    (tmp_path / "mine").mkdir()
    for path in (tmp_path / "new", tmp_path / "mine"):
        with pytest.raises(FastudaError, match="no such data"):
            fails(path, tiny_recipe(), FastudaError("no such data"))
        assert path.exists() == (path.name == "mine")


def test_after_a_stop_it_is_kept_with_what_was_asked_for(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(StoppedError):
        fails(folder.path, tiny_recipe("seed=9"), StoppedError("SIGTERM"), Path("net.safetensors"))
    assert folder.standing() == "half-made"
    assert load_recipe(str(folder.recipe)).seed == 9
    assert folder.beginning() == ("demo", Path("net.safetensors").absolute())


def made(kind: str, folder: RunFolder) -> None:
    """What kills and disks leave, and what they do not."""
    if kind == "empty":
        folder.path.mkdir()
    elif kind == "lock":
        folder.path.mkdir()
        (folder.path / ".lock").touch()
    elif kind == "torn":
        folder.path.mkdir()
        (folder.path / ".begun.json.12-34.part").touch()
    elif kind in ("recipe", "log", "parts", "scored"):
        folder.checkpoints.mkdir(parents=True)
        folder.recipe.write_text("x")
        folder.begun.write_text('{"name": null, "init": null}')
        if kind == "log":
            folder.log.write_text("{}")
            folder.tensorboard.mkdir()
            (folder.tensorboard / "events").touch()
        if kind == "parts":
            (folder.checkpoints / ".x.12-34.part").touch()
            (folder.path / ".recipe.toml.12-34.part").touch()
        if kind == "scored":
            folder.model("source_only", "last").touch()
    elif kind == "folders":
        folder.checkpoints.mkdir(parents=True)
    elif kind == "state":
        folder.checkpoints.mkdir(parents=True)
        CheckpointStore(folder.checkpoints).path("source_only", 0).touch()
    elif kind == "results":
        folder.path.mkdir()
        folder.results.write_text("{}")
    elif kind == "model":
        folder.checkpoints.mkdir(parents=True)
        folder.model("adapted", "best").touch()
    elif kind == "thesis":
        folder.path.mkdir()
        (folder.path / "thesis.txt").write_text("precious")
    elif kind == "own recipe":
        folder.path.mkdir()
        folder.recipe.write_text("# mine\nbase = 'demo'\n")
    elif kind == "own layout":
        folder.checkpoints.mkdir(parents=True)
        folder.recipe.write_text("# mine\nbase = 'demo'\n")
        folder.log.write_text("mine")
    elif kind == "own begun":
        folder.path.mkdir()
        folder.begun.write_text('["when I had begun"]')
        folder.recipe.write_text("# mine\nbase = 'demo'\n")
    elif kind == "download":
        folder.path.mkdir()
        (folder.path / "film.mkv.part").touch()
    elif kind == "pictures":
        folder.pictures.mkdir(parents=True)
        (folder.pictures / "holiday.jpg").touch()
    elif kind == "file":
        folder.path.write_text("mine")
    elif kind == "link":
        folder.path.symlink_to("nowhere")


@pytest.mark.parametrize("kind", ["none", "empty", "lock", "torn"])
def test_nothing_there_is_a_new_run(kind: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    made(kind, folder)
    assert folder.require(resume=False) == folder.require(resume=True) == "new"


@pytest.mark.parametrize("kind", ["recipe", "log", "parts", "scored", "folders"])
def test_what_a_kill_before_the_first_checkpoint_left_is_simply_used(
    kind: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    folder = RunFolder(tmp_path / "run")
    made(kind, folder)
    assert folder.require(resume=False) == folder.require(resume=True) == "half-made"
    with folder.entered():
        folder.begin(tiny_recipe(), "demo")
    assert not folder.log.exists()
    assert not list(folder.path.rglob("*.part"))


@pytest.mark.parametrize("kind", ["state", "results", "model"])
def test_work_is_gone_on_with_or_left_alone(kind: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    made(kind, folder)
    assert folder.require(resume=True) == "run"
    with pytest.raises(
        FastudaError, match=r"run: exists already; continue it with --resume \(in Python resume=True\), or choose"
    ):
        folder.require(resume=False)


@pytest.mark.parametrize(
    "kind", ["thesis", "own recipe", "own layout", "own begun", "download", "pictures", "file", "link"]
)
def test_what_is_no_run_is_left_alone(kind: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    made(kind, folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FastudaError, match=r"run: exists already and is no run; choose another run folder \(--run\)"):
        folder.require(resume=False)
    with pytest.raises(FastudaError, match="run: no run to resume here, but other files"):
        folder.require(resume=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_second_in_a_folder_hears_who_is_there(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from fastuda.runs.folder import RunFolder
with RunFolder(Path({str(tmp_path / "run")!r})).entered():
    print("in", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        with (
            pytest.raises(HeldError, match=rf"run: another process is training here \(process {first.pid} on .*since"),
            RunFolder(tmp_path / "run").entered(),
        ):
            pass
        os.kill(first.pid, 9)
    with RunFolder(tmp_path / "run").entered():
        pass


def test_log_rows_are_added_and_results_replaced(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(tiny_recipe(), "demo")
    for i in range(2):
        folder.append_log({"iteration": i})
        folder.write_results({"title": "GTA5 → Cityscapes", "number": i})
    assert [json.loads(line) for line in folder.log.read_text().splitlines()] == [{"iteration": 0}, {"iteration": 1}]
    assert "→" in folder.results.read_text("utf-8")
    assert json.loads(folder.results.read_text("utf-8"))["number"] == 1
    assert not list(folder.path.rglob("*.part"))


def test_the_latest_run_is_the_one_of_that_recipe_with_the_newest_date(tmp_path: Path) -> None:
    names = ["gta2cs-20260101-120000", "gta2cs-20260102-090000", "gta2cs-edge-20260301-000000", "demo-20270101-000000"]
    for name in reversed(names):
        (tmp_path / name).mkdir()
    assert latest_run(tmp_path, "gta2cs").name == names[1]
    assert latest_run(tmp_path, "gta2cs-edge").name == names[2]


@pytest.mark.parametrize("name", ["**x", "my[1]", "a?", "b+cmix", "c\udcfc"])
def test_a_recipes_name_is_no_pattern(name: str, tmp_path: Path) -> None:
    for folder in (
        f"{name}-20260101-120000",
        f"{name}-1-20270101-120000",
        "yyx-20270101-120000",
        "my1-20270101-120000",
    ):
        (tmp_path / folder).mkdir()
    assert latest_run(tmp_path, name).name == f"{name}-20260101-120000"
    with pytest.raises(FastudaError, match=r"no run of .* to resume") as caught:
        latest_run(tmp_path / "none", name)
    assert str(caught.value).isprintable()


def test_no_run_of_that_recipe_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "gta2cs-edge-20260301-000000").mkdir()
    with pytest.raises(FastudaError, match="no run of gta2cs to resume; name its folder with --run"):
        latest_run(tmp_path, "gta2cs")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"name": "demo"}', "\0", "[" * 100_000])
def test_a_torn_beginning_is_none_and_what_lies_beside_it_is_left_alone(
    content: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(tiny_recipe(), "demo")
    assert folder.goes_on()
    folder.begun.write_text(content)
    assert folder.beginning() is None
    assert folder.standing() == "foreign"
    assert not folder.goes_on()


def test_a_kill_at_any_write_of_a_beginning_leaves_what_is_begun_again(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, left = RunFolder(tmp_path / "run"), []

    def watch(name: str) -> None:
        original = getattr(run_folder_module, name)

        def watched(*args: Any, **options: Any) -> Any:
            done = original(*args, **options)
            left.append((folder.standing(), folder.beginning()))
            return done

        monkeypatch.setattr(run_folder_module, name, watched)

    watch("make_folder")
    watch("write_atomic")
    for _ in range(2):  # the second time over what the first one left
        folder.begin(tiny_recipe(), "demo")
    done = ("half-made", ("demo", None))
    unfinished = [("half-made", None)] * 4
    assert left == [("new", None), *unfinished, done, done, *unfinished, done]


@pytest.mark.parametrize("place", ["run", "run/checkpoints", "run/pictures"])
def test_a_locked_folder_is_named_and_never_taken_for_an_empty_one(
    place: str, tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, listed = RunFolder(tmp_path / "run"), os.scandir
    folder.begin(tiny_recipe(), "demo")
    folder.begun.unlink()
    folder.recipe.unlink()

    def refused(path: Any) -> Any:
        if str(path) == str(tmp_path / place):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in refused(path)])
    for resume in (False, True):
        with pytest.raises(FastudaError, match=rf"{place}: cannot be looked into \(Permission denied\)$"):
            folder.require(resume=resume)


def test_a_folder_whose_files_may_not_be_looked_at_is_named(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, looked = RunFolder(tmp_path / "run"), os.stat
    folder.begin(tiny_recipe(), "demo")

    def refused(path: Any, **options: Any) -> Any:
        if str(path).startswith(f"{folder.path}/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return looked(path, **options)

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(FastudaError, match=r"results\.json: cannot be looked into \(Permission denied\)$"):
        folder.require(resume=True)


def test_results_keep_names_that_are_no_utf_8(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(tiny_recipe(), "demo")
    folder.write_results({"command": "fastuda train --run runs/\udcfc", "title": "für 日本"})
    text = folder.results.read_text("utf-8")
    assert "für 日本" in text
    assert json.loads(text)["command"] == "fastuda train --run runs/\udcfc"


@pytest.mark.parametrize("call", ["exists", "iterdir"])
def test_a_folder_that_the_system_refuses_is_not_an_empty_one(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, call, refused)
    with pytest.raises(FastudaError, match=r"cannot be looked into \(Permission denied\)"):
        RunFolder(tmp_path).standing()
