"""log.jsonl gone on with: rows stay as they were written, and what is damaged or missing is told and ends no run."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fastuda.training.log as run_log_module
from fastuda.errors import FastudaError
from fastuda.files.disk import sync_journal
from fastuda.metrics import Scores
from fastuda.recipe import Recipe
from fastuda.runs.folder import RunFolder
from fastuda.training.log import RunLog
from fastuda.training.readback import Reading

AT = "adapted", 4


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run's folder with the rows of six iterations."""
    folder = RunFolder(tmp_path)
    with RunLog(folder) as log:
        log.training("source_only", Reading(2, {"source": 1.5, "total": 1.5}, 0.0, -1, 1.0, 12.34567890123, 1.0))
        log.evaluation(
            "source_only", 2, Scores.of(np.array([[3, 1], [0, 0]]), ("road", "sky"), "full", {"x": ("sky",)})
        )
        log.training("adapted", Reading(2, {"mix": 3.4e38, "total": -1e-30}, 2.5e-4, -1, 1.0, 1e6, 0.0))
        log.evaluation("adapted", 4, Scores.of(np.array([[3, 0], [0, 0]]), ("road", "schöner [Himmel]"), "released"))
        log.training("adapted", Reading(6, {"mix": 1, "total": 1}, 1e-4, -1, 1.0, 3.0, 0.5))
        assert log.rows == 5
    return folder


def gone_on_with(folder: RunFolder, counted: int = 4) -> int:
    """How many rows a run goes on with."""
    with RunLog(folder, AT, counted) as log:
        return log.rows


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_rows_before_the_checkpoint_keep_every_byte_and_later_ones_go(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    written = folder.log.read_bytes().splitlines(keepends=True)
    assert gone_on_with(folder) == 4
    assert folder.log.read_bytes() == b"".join(written[:4])
    assert warnings(caplog) == []


def with_row(number: int, **changes: Any) -> Callable[[bytes], bytes]:
    def spoil(content: bytes) -> bytes:
        lines = content.splitlines()
        lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **changes}).encode()
        return b"\n".join(lines) + b"\n"

    return spoil


def with_line(number: int, line: bytes) -> Callable[[bytes], bytes]:
    return lambda content: b"\n".join([line if i == number else old for i, old in enumerate(content.split(b"\n"), 1)])


DAMAGES: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "a flip in time's key": (1, lambda content: content.replace(b'"time"', b'"tima"', 1)),
    "a flip in the rate's key": (1, lambda content: content.replace(b'"lr"', b'"lq"', 1)),
    "a flip in the score's key": (2, lambda content: content.replace(b'"miou"', b'"mxou"', 1)),
    "a flip in the stage": (1, lambda content: content.replace(b"source_only", b"source_onlx", 1)),
    "losses in a list": (3, with_row(3, losses=[])),
    "scores in a list": (2, with_row(2, scores=[])),
    "scores without numbers": (2, with_row(2, scores={"miou": "much", "iou": {}})),
    "an endless iteration": (3, with_row(3, iteration=float("inf"))),
    "half an iteration": (3, with_row(3, iteration=1.5)),
    "an iteration before the first": (3, with_row(3, iteration=-1)),
    "an iteration of many digits": (3, with_row(3, iteration=10**30)),
    "true for an iteration": (3, with_row(3, iteration=True)),
    "no number for a loss": (1, with_row(1, losses={"total": float("nan")})),
    "text for a loss": (1, with_row(1, losses={"total": "1.5"})),
    "a loss that no float32 is": (1, with_row(1, losses={"total": 1e300})),
    "text for a rate": (1, with_row(1, lr="0.1")),
    "an endless time": (1, with_row(1, time=float("inf"))),
    "half a surrogate in a name": (1, with_row(1, losses={"\ud800": 1.0})),
    "bytes that are no text": (2, lambda content: content.replace(b'"road"', b'"r\xffad"', 1)),
    "a number of 5,000 digits": (1, with_line(1, b'{"stage": ' + b"1" * 5000 + b"}")),
    "lists in lists in lists": (1, with_line(1, b"[" * 100_000)),
    "another row": (4, with_line(4, b'{"stage": "adapted", "iteration": 1}')),
    "zeros": (4, with_line(4, b"\0" * 200)),
    "nothing": (4, with_line(4, b"")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_left_out_with_one_line_that_names_it(
    damage: str, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    line, spoil = DAMAGES[damage]
    written = folder.log.read_bytes().splitlines(keepends=True)
    folder.log.write_bytes(spoil(b"".join(written)))
    assert gone_on_with(folder) == 3
    assert folder.log.read_bytes() == b"".join(row for i, row in enumerate(written[:4], 1) if i != line)
    assert warnings(caplog) == [f"{folder.log}: damaged in line {line}, left out; the run itself is whole"]
    caplog.clear()
    assert gone_on_with(folder, counted=3) == 3
    assert warnings(caplog) == []


@pytest.mark.parametrize("seed", range(3))
def test_whatever_bytes_are_flipped_the_run_goes_on(seed: int, folder: RunFolder) -> None:
    written, rng = folder.log.read_bytes(), random.Random(seed)
    for _ in range(60):
        content = bytearray(written)
        for _ in range(rng.choice([1, 1, 5])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        folder.log.write_bytes(content)
        gone_on_with(folder)


def test_of_many_damaged_lines_ten_are_named(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    folder.log.write_bytes(b"x\n" * 12 + folder.log.read_bytes())
    assert gone_on_with(folder) == 4
    assert "damaged in lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more, left out" in "".join(warnings(caplog))


def test_what_a_kill_left_of_a_last_row_is_not_told(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    folder.log.write_bytes(folder.log.read_bytes()[:-20])
    assert gone_on_with(folder) == 4
    assert warnings(caplog) == []


@pytest.mark.parametrize(("left", "told"), [(3, "a row"), (1, "3 rows"), (0, "4 rows")])
def test_rows_that_a_checkpoint_counts_on_and_that_are_gone_are_told(
    left: int, told: str, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.log.write_bytes(b"".join(folder.log.read_bytes().splitlines(keepends=True)[:left]))
    if not left:
        folder.log.unlink()
    assert gone_on_with(folder) == left
    assert warnings(caplog) == [f"{folder.log}: lacks {told} from before the checkpoint; the run itself is whole"]


def test_an_evaluation_after_the_checkpoint_of_its_iteration_is_not_kept_twice(folder: RunFolder) -> None:
    """A stop broke it off, the run went on with it, and was killed before the next checkpoint."""
    rows = folder.log.read_bytes().splitlines(keepends=True)
    assert gone_on_with(folder, counted=3) == 3
    assert folder.log.read_bytes() == b"".join(rows[:3])


def test_events_are_made_anew_of_the_rows_that_stay(folder: RunFolder) -> None:
    gone_on_with(folder)
    read = EventAccumulator(str(folder.tensorboard))
    read.Reload()
    assert [event.step for event in read.Scalars("source_only/iou/road")] == [2]
    assert [event.step for event in read.Scalars("adapted/loss/total")] == [2]


@pytest.mark.parametrize("kind", ["folder", "pipe", "unreadable"])
def test_a_log_that_is_no_file_to_be_read_is_one_message(
    kind: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "unreadable":

        def refuse(path: Path) -> bytes:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(run_log_module, "read_regular", refuse)
    else:
        folder.log.unlink()
        folder.log.mkdir() if kind == "folder" else os.mkfifo(folder.log)
    with pytest.raises(FastudaError, match=r"^\S+log\.jsonl: cannot be read \([^\n]+\); make it readable, or move it"):
        gone_on_with(folder)


def test_a_folder_in_the_logs_place_does_not_end_a_new_run_in_a_traceback(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(FastudaError, match=r"log\.jsonl: cannot be written"):
        RunFolder(tmp_path).begin(tiny_recipe(), "demo")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files and folders that are synced."""
    names: list[str] = []
    really = os.fsync

    def fsync(handle: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


def test_rows_are_synced_with_the_name_of_their_file(folder: RunFolder, synced: list[str]) -> None:
    folder.sync_log()
    assert synced == ["log.jsonl", folder.path.name]
    sync_journal(folder.path / "gone")


def test_a_log_that_was_taken_back_is_synced(folder: RunFolder, synced: list[str]) -> None:
    gone_on_with(folder)
    assert [name.split(".")[1] for name in synced if name.endswith(".part")] == ["log"]
    assert folder.path.name in synced


def test_rows_that_the_disk_does_not_take_are_one_message(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(FastudaError, match=r"log\.jsonl: cannot be written \(Input/output error\)"):
        folder.sync_log()
