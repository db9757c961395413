"""A run's checkpoints on disk: the last few, the newest sound one, nothing damaged taken for whole."""

from __future__ import annotations

import errno
import io
import logging
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fastuda.files.regular_file as regular_file
import fastuda.model.archive as archive_module
import fastuda.runs.checkpoint.store as store_module
from fastuda.errors import FastudaError, UnreadableError
from fastuda.method.state import TrainingState
from fastuda.model.build import build_network
from fastuda.model.weights import read_weights, save_weights
from fastuda.recipe import Recipe
from fastuda.runs.checkpoint.model_file import ModelFile
from fastuda.runs.checkpoint.notes import Notes
from fastuda.runs.checkpoint.snapshot import take_snapshot
from fastuda.runs.checkpoint.state_file import read_state
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runs.checkpoint.writer import CheckpointWriter

NOTES = Notes(warmup=True)


@pytest.fixture
def state(tiny_recipe: Callable[..., Recipe]) -> TrainingState:
    recipe = tiny_recipe()
    return TrainingState.begin(build_network(recipe), recipe.train.optimizer, 10, 0.9)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path)


def saved(store: CheckpointStore, state: TrainingState, *iterations: int, stage: Any = "adapted") -> list[Path]:
    return [store.write(take_snapshot(state, stage, iteration, NOTES)) for iteration in iterations]


def test_the_last_two_are_kept(store: CheckpointStore, state: TrainingState) -> None:
    saved(store, state, 0, 5, stage="source_only")
    saved(store, state, 0, 100, 1_000_000_000)
    assert [file.path.name for file in store.files()] == [
        "adapted-1000000000.state.safetensors",
        "adapted-0000100.state.safetensors",
    ]


def test_a_folder_that_is_none_is_named_and_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").touch()
    with pytest.raises(FastudaError, match=r"checkpoints: cannot be looked into \(Not a directory\)$"):
        CheckpointStore(tmp_path / "checkpoints").files()


@pytest.mark.parametrize("kept", [1, 3])
def test_or_as_many_as_are_asked_for(kept: int, tmp_path: Path, state: TrainingState) -> None:
    saved(CheckpointStore(tmp_path, kept), state, 0, 1, 2, 3)
    assert len(CheckpointStore(tmp_path).files()) == kept


def test_the_newest_is_the_one_of_the_later_stage(store: CheckpointStore, state: TrainingState) -> None:
    saved(store, state, 9, stage="source_only")
    saved(store, state, 3)
    assert (store.newest_sound().stage, store.newest_sound().iteration) == ("adapted", 3)


@pytest.mark.parametrize("seed", range(30))
def test_every_flip_and_cut_is_found_and_the_elder_used(
    seed: int, store: CheckpointStore, state: TrainingState, caplog: pytest.LogCaptureFixture
) -> None:
    _, newest = saved(store, state, 3, 6)
    content, rng = bytearray(newest.read_bytes()), np.random.default_rng(seed)
    place = int(rng.integers(4000 if seed % 3 == 0 else len(content)))  # the header is small beside the data
    if seed % 2:
        content[place] ^= 1 << int(rng.integers(8))
    else:
        content = content[:place]
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert store.newest_sound(set_aside=True).iteration == 3
    assert f"{newest}: " in caplog.text
    assert "the one before it is used: adapted-0000003.state.safetensors" in caplog.text
    assert [file.iteration for file in store.files()] == [3]


@pytest.mark.parametrize("damage", ["zeros", "empty", "swapped", "renamed", "folder", "fifo"])
def test_other_damage_is_found_too(damage: str, store: CheckpointStore, state: TrainingState) -> None:
    elder, newest = saved(store, state, 3, 6)
    content = bytearray(newest.read_bytes())
    newest.unlink()
    if damage == "zeros":
        content[-8192:-4096] = bytes(4096)
        newest.write_bytes(content)
    elif damage == "empty":
        newest.touch()
    elif damage == "swapped":
        shutil.copy(elder, newest)
    elif damage == "renamed":
        newest.with_name("adapted-0000009.state.safetensors").write_bytes(content)
    elif damage == "folder":
        newest.mkdir()
    else:
        os.mkfifo(newest)
    assert store.newest_sound().iteration == 3


def test_without_a_sound_one_every_damage_is_named(store: CheckpointStore, state: TrainingState) -> None:
    for path in saved(store, state, 3, 6):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FastudaError, match=r"(?s)0000006.*damaged.*0000003.*damaged.*no sound checkpoint is left"):
        store.newest_sound()


def test_a_folder_without_any_says_so(store: CheckpointStore) -> None:
    with pytest.raises(FastudaError, match="no checkpoint to resume from"):
        store.newest_sound()


def test_the_disk_is_looked_at_first(
    store: CheckpointStore, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(store, state, 3)
    before = list(store.folder.iterdir())
    usage = shutil.disk_usage(store.folder)._replace(free=1000)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(FastudaError, match=r"a checkpoint needs \d+ MiB, and 1000 B are free.*make room; the run g"):
        CheckpointWriter(store).write(state, "adapted", 6, NOTES)
    assert list(store.folder.iterdir()) == before


def test_orphans_of_killed_writers_are_swept(store: CheckpointStore, state: TrainingState) -> None:
    (kept,) = saved(store, state, 3)
    (store.folder / ".adapted-0000006.state.safetensors.12-34.part").write_bytes(b"half")
    store.sweep()
    assert list(store.folder.iterdir()) == [kept]


def test_training_goes_on_while_a_checkpoint_is_written(
    store: CheckpointStore, state: TrainingState, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    weight = state.student.backbone.conv1.weight
    before = weight.detach().clone()
    average = {key: value.clone() for key, value in state.averaged.state_dict().items()}
    model = ModelFile.of(tmp_path / "adapted-last.safetensors", state.averaged, tiny_recipe(), {})
    with CheckpointWriter(store) as writer:
        writer.write(state, "adapted", 3, NOTES, models=[model])
        with torch.no_grad():
            weight.zero_()
            next(iter(state.averaged.parameters())).zero_()
    key = "backbone.conv1.weight"
    assert torch.equal(read_state(store.files()[0].path).tensors[f"student.{key}"], before)
    written = read_weights(tmp_path / "adapted-last.safetensors").state
    assert all(torch.equal(written[key], value) for key, value in average.items())


def test_memory_is_used_again_and_holds_the_new_state(store: CheckpointStore, state: TrainingState) -> None:
    with CheckpointWriter(store) as writer:
        for iteration in range(3):
            with torch.no_grad():
                state.student.backbone.conv1.weight.fill_(iteration)
            writer.write(state, "adapted", iteration, NOTES)
    assert (store.newest_sound().tensors["student.backbone.conv1.weight"] == 2).all()


def test_what_goes_wrong_in_the_background_comes_to_the_front(
    store: CheckpointStore, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise FastudaError("no space left")

    monkeypatch.setattr(store_module, "write_state", full)
    writer = CheckpointWriter(store)
    writer.write(state, "adapted", 3, NOTES)
    with pytest.raises(FastudaError, match="no space left"):
        writer.wait()
    writer.check()
    with pytest.raises(FastudaError, match="no space left"), CheckpointWriter(store) as other:
        other.write(state, "adapted", 3, NOTES)


def test_a_state_after_a_loss_that_was_not_finite_is_not_kept(store: CheckpointStore, state: TrainingState) -> None:
    saved(store, state, 3)
    state.first_nonfinite.fill_(4)
    with CheckpointWriter(store) as writer:
        writer.write(state, "adapted", 6, NOTES)
    assert [file.iteration for file in store.files()] == [3]


def listed(store: CheckpointStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.iterdir()}


@pytest.mark.parametrize("call", ["stat", "open", "fstat"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_a_newest_one_that_the_system_refuses_is_not_taken_for_damaged(
    call: str, number: int, store: CheckpointStore, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, newest = saved(store, state, 3, 6)
    before = listed(store)

    def broken(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(regular_file, "os", SimpleNamespace(**{**vars(os), call: broken}))
    with pytest.raises(UnreadableError) as caught:
        store.newest_sound(set_aside=True)
    assert str(caught.value) == (
        f"{newest}: this checkpoint cannot be read ({os.strerror(number)}); nothing was changed: see that it can be "
        "read and go on with --resume, or move it away to go on from its elder adapted-0000003.state.safetensors"
    )
    assert listed(store) == before


_REFUSED = [
    (MemoryError("Cannot allocate memory (os error 12)"), "Cannot allocate memory"),
    (FileNotFoundError("No such file or directory: /proc/self/fd/3"), "No such file or directory: /proc/self/fd/3"),
]
_NOT_MAPPED = [
    (
        RuntimeError("unable to mmap 167775304 bytes from file </proc/self/fd/3>: Cannot allocate memory (12)"),
        "Cannot allocate memory",
    ),
    (
        RuntimeError("unable to open file </proc/self/fd/3> in read-only mode: Too many open files (24)"),
        "Too many open files",
    ),
]


@pytest.mark.parametrize(
    ("place", "error", "reason"),
    [("safe_open", *refusal) for refusal in (*_REFUSED, *_NOT_MAPPED)] + [("verify", *refusal) for refusal in _REFUSED],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_neither_is_one_that_cannot_be_mapped_or_summed(
    place: str, error: Exception, reason: str, store: CheckpointStore, state: TrainingState,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (only,) = saved(store, state, 3)
    before = listed(store)

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(archive_module, place, broken)
    with pytest.raises(UnreadableError) as caught:
        store.newest_sound(set_aside=True)
    assert str(caught.value) == (
        f"{only}: this checkpoint cannot be read ({reason}); nothing was changed: see that it can be read and go on "
        "with --resume"
    )
    assert listed(store) == before


def test_a_disk_that_fails_in_the_middle_of_a_file_is_told_before_it_is_mapped(
    store: CheckpointStore, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    (only,) = saved(store, state, 3)

    class Failing(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 0:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(archive_module, "open_regular", lambda path: Failing(io.FileIO(path)))
    with pytest.raises(UnreadableError, match=rf"{only.name}: this checkpoint cannot be read \(Input/output error\)"):
        store.newest_sound()


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("AS", 8, "Cannot allocate memory"),
        ("AS", 90, "Cannot allocate memory"),
        ("NOFILE", 1, "Too many open files"),
        ("NOFILE", 2, "Too many open files"),
    ],
)
def test_little_memory_and_few_open_files_are_not_damage(
    kind: str, more: int, reason: str, store: CheckpointStore
) -> None:
    """The system's own refusals, as `ulimit -v` and `ulimit -n` make them: `more` MiB or files than there are."""
    for iteration in (3, 6):
        save_weights(store.path("adapted", iteration), {"a": torch.zeros(16 << 20)}, {"format": "fastuda-state-2"})
    names = sorted(os.listdir(store.folder))
    mapped = int(Path("/proc/self/status").read_text().partition("VmSize:")[2].split()[0]) << 10
    free = [number for number in range(1000) if not Path(f"/proc/self/fd/{number}").exists()]
    limit = free[more] if kind == "NOFILE" else mapped + (more << 20)
    which = getattr(resource, f"RLIMIT_{kind}")
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (limit, hard))
    try:
        with pytest.raises(UnreadableError) as caught:
            store.newest_sound(set_aside=True)
    finally:
        resource.setrlimit(which, (soft, hard))
    assert f"this checkpoint cannot be read ({reason}); nothing was changed" in str(caught.value)
    assert sorted(os.listdir(store.folder)) == names


def test_a_link_to_a_disk_that_is_not_there_is_not_damage(store: CheckpointStore, state: TrainingState) -> None:
    _, newest = saved(store, state, 3, 6)
    newest.unlink()
    newest.symlink_to("/nowhere/adapted-0000006.state.safetensors")
    with pytest.raises(UnreadableError, match=r"0000006.*cannot be read \(No such file or directory\)"):
        store.newest_sound(set_aside=True)
    assert newest.is_symlink()


def test_one_that_another_process_deletes_meanwhile_is_passed_over(
    store: CheckpointStore, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, newest = saved(store, state, 3, 6)
    files = store.files()
    newest.unlink()
    monkeypatch.setattr(store, "files", lambda: files)
    assert store.newest_sound(set_aside=True).iteration == 3


def test_a_folder_that_cannot_be_looked_into_is_not_an_empty_one(
    store: CheckpointStore, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(store, state, 3)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(FastudaError, match=r"cannot be looked into \(Permission denied\)$"):
        store.newest_sound()


def test_what_a_checkpoint_counts_on_is_made_durable_before_it_has_a_name(
    store: CheckpointStore, state: TrainingState
) -> None:
    there: list[int] = []
    with CheckpointWriter(store, lambda: there.append(len(store.files()))) as writer:
        writer.write(state, "adapted", 1, NOTES)
        writer.write(state, "adapted", 2, NOTES)
    assert there == [0, 1]


def test_without_that_there_is_no_checkpoint(store: CheckpointStore, state: TrainingState) -> None:
    def refuse() -> None:
        raise FastudaError("log.jsonl: no space left on the disk")

    with pytest.raises(FastudaError, match=r"log\.jsonl: no space left"), CheckpointWriter(store, refuse) as writer:
        writer.write(state, "adapted", 1, NOTES)
    assert store.files() == []
