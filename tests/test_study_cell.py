"""A cell in its process: what it answers its study, what its log says, and a folder that another run still holds."""

from __future__ import annotations

import errno
import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_study_stop import results

from fastuda.errors import FastudaError, UsageError
from fastuda.files.lock import HeldError, held
from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runtime.stop import StoppedError, StopRequest
from fastuda.study import cell as cell_module
from fastuda.study import run as run_module
from fastuda.study.cell import Answer, Request, _answer, _PlainStream
from fastuda.study.plan import Plan, plan_repeats
from fastuda.study.run import run_cell


@pytest.fixture
def repeats(tmp_path: Path) -> Plan:
    return plan_repeats(load_recipe("demo"), "demo", 1, tmp_path / "study")


@pytest.mark.parametrize(
    ("raised", "answer", "said"),
    [
        (None, ("finished", ""), "finished"),
        (StoppedError("at iteration 3"), ("stopped", "--max-time is over"), "stopped: at iteration 3"),
        (FastudaError("the disk is full"), ("failed", "the disk is full"), "error: the disk is full"),
        (UsageError("another recipe"), ("wrong usage", "another recipe"), "error: another recipe"),
    ],
)
def test_what_becomes_of_a_cell_is_answered_and_logged(
    raised: Exception | None,
    answer: Answer,
    said: str,
    repeats: Plan,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[tuple[Any, ...]] = []

    def stand_in(*arguments: Any, **options: Any) -> None:
        asked.append((*arguments, options["device"], options["force"]))
        if raised is not None:
            raise raised

    monkeypatch.setattr(cell_module, "run_cell", stand_in)
    with StopRequest(0.0) as stop:
        assert _answer(Request(repeats.cells[0], "cpu", True, 1, []), stop) == answer
        assert asked == [(repeats.cells[0], stop, "cpu", True)]
    log = capsys.readouterr().err
    assert log.startswith("demo, seed 0, 2")
    assert log.endswith(f"\n{said}\n")


def test_an_error_of_the_code_is_left_to_end_the_process(repeats: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_module, "run_cell", None)
    with StopRequest() as stop, pytest.raises(TypeError):
        _answer(Request(repeats.cells[0], "cpu", False, 1, []), stop)


def test_names_do_not_act_in_a_log() -> None:
    out = io.StringIO()
    print("a\x1b[31mname", file=_PlainStream(out, lambda _: None))
    assert out.getvalue() == "a\\x1b[31mname\n"


def test_a_log_on_a_full_disk_does_not_end_the_run() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    print("lost", file=_PlainStream(Full(), lambda _: None), flush=True)


def test_a_folder_that_an_ending_run_still_holds_is_waited_for(repeats: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, held_now = repeats.cells[0], threading.Event()
    cell.folder.mkdir(parents=True)
    monkeypatch.setattr(run_module, "train", None)

    def end() -> None:
        with held(cell.folder, "training", wait=False):
            held_now.set()
            time.sleep(0.5)
            (cell.folder / "results.json").write_text(json.dumps(results(cell.recipe)))

    ending = threading.Thread(target=end)
    ending.start()
    held_now.wait(10)
    with StopRequest() as stop:
        found = run_cell(cell, stop, device="cpu", display=Display(Console(file=io.StringIO())), force=False)
    ending.join()
    assert found["adapted"]["last"]["miou"] == 40.0


def test_the_wait_for_it_ends_with_a_stop_and_with_patience(repeats: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, display = repeats.cells[0], Display(Console(file=io.StringIO()))
    cell.folder.mkdir(parents=True)
    with held(cell.folder, "training", wait=False):
        with StopRequest(0.0) as stop, pytest.raises(StoppedError, match="stopped before this run"):
            run_cell(cell, stop, device="cpu", display=display, force=False)
        monkeypatch.setattr(run_module, "_PATIENCE_SECONDS", 0.1)
        with StopRequest() as stop, pytest.raises(HeldError, match="another process is training here"):
            run_cell(cell, stop, device="cpu", display=display, force=False)
