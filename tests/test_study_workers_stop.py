"""What ends a study of several processes: stops, errors, a time, Ctrl-C twice; every run has its say first, or none."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cell_stand_ins import Cells, conducted, is_alive, names, run
from rich.console import Console

from fastuda.errors import FastudaError, UsageError
from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runtime.stop import StoppedError, StopRequest
from fastuda.study import conduct as conduct_module
from fastuda.study.plan import Plan, plan_repeats
from fastuda.study.run import Outcome
from fastuda.study.schedule import run_in_processes


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cells:
    monkeypatch.setattr(conduct_module, "study_chart", lambda *_: None)  # it takes its time
    (tmp_path / "cells").mkdir()
    return Cells(tmp_path / "cells", monkeypatch)


@pytest.fixture
def repeats(tmp_path: Path) -> Plan:
    return plan_repeats(load_recipe("demo"), "demo", 3, tmp_path / "study")


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """Begins a function in a thread, which has to end."""
    threads: list[threading.Thread] = []

    def begin(function: Callable[[], Any]) -> None:
        threads.append(threading.Thread(target=function))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_wrong_usage_ends_the_study_when_the_others_have_saved(cells: Cells, repeats: Plan) -> None:
    cells.do("""
if seed == "seed-0":
    wait_for(f"{root}/study-seed-1.pid")
    study.send(("wrong usage", "another recipe"))
else:
    be_stopped()
""")
    with pytest.raises(UsageError, match="another recipe"):
        run(repeats)
    assert names(cells.events, "stop") == ["study/seed-1"]
    assert names(cells.events, "begin").count("study/seed-2") == 0


def test_a_report_that_cannot_be_written_ends_it_likewise(cells: Cells, repeats: Plan) -> None:
    cells.do('finish() if seed == "seed-0" else be_stopped()')

    def refuse(_: object) -> None:
        cells.wait_for("study-seed-1")
        raise FastudaError("the disk is full")

    with StopRequest() as stop, pytest.raises(FastudaError, match="the disk is full"):
        run_in_processes(
            repeats, stop, cards=(None, None), device="cpu", display=Display(Console(file=io.StringIO())),
            finished=refuse,
        )  # fmt: skip
    assert names(cells.events, "stop") == ["study/seed-1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_lets_every_run_save_and_names_the_first(
    number: signal.Signals, cells: Cells, repeats: Plan, tmp_path: Path, beside: Callable[..., None]
) -> None:
    cells.do("be_stopped()")

    def ask() -> None:
        cells.wait_for("study-seed-0", "study-seed-1")
        os.kill(os.getpid(), number)

    beside(ask)
    out = io.StringIO()
    with pytest.raises(StoppedError, match=rf"seed-0: stopped \({number.name}\), everything saved; the same command"):
        run(repeats, out=out)
    assert sorted(names(cells.events, "stop")) == ["study/seed-0", "study/seed-1"]
    assert names(cells.events, "begin").count("study/seed-2") == 0
    assert f"{number.name}: 2 runs save what there is; a further Ctrl-C" in out.getvalue()
    assert "[2/3] demo, seed 1: stopped after 0:00:0" in out.getvalue()


def test_a_run_that_ends_when_it_is_stopped_is_kept(cells: Cells, repeats: Plan, beside: Callable[..., None]) -> None:
    cells.do('study.recv_bytes(); finish() if seed == "seed-0" else study.send(("stopped", "SIGTERM"))')

    def ask() -> None:
        cells.wait_for("study-seed-0", "study-seed-1")
        os.kill(os.getpid(), signal.SIGTERM)

    beside(ask)
    seen: list[list[Outcome]] = []
    with pytest.raises(StoppedError, match="seed-1: stopped"):
        run(repeats, seen=seen)
    assert [outcome.cell.seed for outcome in seen[-1]] == [0]


def test_a_stop_when_nothing_is_left_to_run_lets_the_study_end(cells: Cells, repeats: Plan) -> None:
    run(repeats)
    assert len(run(repeats, deadline=0.0)) == 3


def test_a_time_that_is_over_begins_no_process(cells: Cells, repeats: Plan) -> None:
    with pytest.raises(StoppedError, match=r"seed-0: stopped \(--max-time is over\)"):
        run(repeats, deadline=0.0)
    assert not cells.path("events").exists()


def test_a_time_that_ends_stops_what_runs(cells: Cells, repeats: Plan) -> None:
    cells.do("be_stopped()")
    with pytest.raises(StoppedError, match=r"seed-0: stopped \(--max-time is over\)"):
        run(repeats, deadline=time.monotonic() + 1)
    assert len(names(cells.events, "stop")) == 2


@pytest.mark.parametrize("code", ['study.send(("stopped", "SIGUSR1"))', "os.kill(os.getpid(), signal.SIGUSR1)"])
def test_a_process_that_is_stopped_by_itself_stops_the_study(code: str, cells: Cells, repeats: Plan) -> None:
    cells.do(f"""
if seed == "seed-1":
    wait_for(f"{{root}}/study-seed-0.pid")
    {code}
else:
    be_stopped()
""")
    with pytest.raises(StoppedError, match=r"seed-0: stopped \(SIGUSR1\)"):
        run(repeats)
    assert names(cells.events, "stop") == ["study/seed-0"]


def test_a_second_ctrl_c_kills(cells: Cells, repeats: Plan, tmp_path: Path, beside: Callable[..., None]) -> None:
    cells.do("time.sleep(60)")
    processes: list[int] = []

    def insist() -> None:
        processes.extend(cells.wait_for("study-seed-0", "study-seed-1"))
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    beside(insist)
    with pytest.raises(KeyboardInterrupt):
        conducted(repeats, tmp_path, ends_process=True)
    time.sleep(0.4)  # the second signal is sent by now, and comes to nobody
    assert len(processes) == 2
    assert not any(is_alive(process) for process in processes)
