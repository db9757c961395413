"""Cells in processes: what begins when and on which card, how they end and die, and that none is left behind."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_study_stop import results

from fastuda.errors import FastudaError, UsageError
from fastuda.files.lock import HeldError, held
from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runtime.stop import StoppedError, StopRequest
from fastuda.runtime.watchdog import EXIT_STUCK
from fastuda.study import cell_process
from fastuda.study import conduct as conduct_module
from fastuda.study import run as run_module
from fastuda.study.conduct import conduct, failures
from fastuda.study.plan import Plan, plan_repeats, plan_study
from fastuda.study.run import Outcome, run_cell
from fastuda.study.schedule import run_in_processes
from fastuda.study.table import Row, Table
from fastuda.study.workers import cards

BEGINNING = """
import os, shutil, signal, subprocess, sys, time
from multiprocessing.connection import Connection

study, connection = Connection(int(sys.argv[1])), None
study.recv_bytes()
folder = os.readlink("/proc/self/fd/1").removesuffix(".log")
row, seed = folder.split("/")[-2:]
root = os.environ["CELLS"]

def note(what):
    with open(f"{root}/events", "a") as file:
        file.write(f"{what} {row}/{seed} {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)

def finish():
    note("end")
    os.makedirs(folder, exist_ok=True)
    shutil.copy(f"{root}/results.json", f"{folder}/results.json")
    study.send(("finished", ""))

def be_stopped():
    try:
        study.recv_bytes()
    except EOFError:
        note("left alone")
        raise SystemExit
    note("stop")
    study.send(("stopped", "SIGTERM"))

note("begin")
open(f"{root}/{row}-{seed}.pid", "w").write(str(os.getpid()))
"""
"""Of a process that stands in for a cell's: without torch it is there at once."""
ROWS = (Row(name="source only", variant="source-only"), Row(name="CMix", variant="cmix"), Row(name="all"))


class Cells:
    """Stand-ins, told in Python what to do; and what they did."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("CELLS", str(root))
        (root / "results.json").write_text(json.dumps(results(load_recipe("demo"))))
        self.do("finish()")

    def do(self, code: str) -> None:
        self._monkeypatch.setattr(cell_process, "_START", BEGINNING + code)

    @property
    def events(self) -> list[list[str]]:
        return [line.split() for line in (self._root / "events").read_text().splitlines()]

    def path(self, name: str) -> Path:
        return self._root / name

    def wait_for(self, *names: str) -> list[int]:
        """Until these cells are there; their processes."""
        until = time.monotonic() + 20
        while not all(self.path(f"{name}.pid").exists() and self.path(f"{name}.pid").read_text() for name in names):
            assert time.monotonic() < until
            time.sleep(0.01)
        return [int(self.path(f"{name}.pid").read_text()) for name in names]


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cells:
    monkeypatch.setattr(conduct_module, "study_chart", lambda *_: None)  # it takes its time
    (tmp_path / "cells").mkdir()
    return Cells(tmp_path / "cells", monkeypatch)


@pytest.fixture
def repeats(tmp_path: Path) -> Plan:
    return plan_repeats(load_recipe("demo"), "demo", 3, tmp_path / "study")


@pytest.fixture
def table(tmp_path: Path) -> Plan:
    return plan_study(Table(title="t", rows=ROWS, control=False), "demo", (0, 1), (), tmp_path / "study")


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


def run(plan: Plan, *of_cuda: str | None, seen: list[list[Outcome]] | None = None, **options: Any) -> list[Outcome]:
    display = Display(Console(file=options.pop("out", io.StringIO()), width=300))
    keep = (lambda _: None) if seen is None else seen.append
    with StopRequest(options.pop("deadline", None)) as stop:
        return run_in_processes(
            plan, stop, cards=of_cuda or (None, None), device="cpu", display=display, finished=keep, **options
        )


def is_alive(process: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def names(events: Sequence[Sequence[str]], what: str) -> list[str]:
    return [event[1] for event in events if event[0] == what]


def test_a_cell_begins_when_its_warm_up_is_done_and_has_a_card_of_its_own(cells: Cells, table: Plan) -> None:
    run(table, "3", "GPU-5")
    assert len(cells.events) == 12
    taken: dict[str, str] = {}
    done: set[str] = set()
    for what, name, card in cells.events:
        row, _, seed = name.partition("/")
        if what == "begin":
            assert row == "warm-up" or f"warm-up/{seed}" in done
            assert card not in taken
            taken[card] = name
        else:
            done.add(name)
            del taken[card]
    assert {card for _, _, card in cells.events} == {"3", "GPU-5"}


def test_two_run_at_a_time_and_the_first_of_the_plan_begins_first(cells: Cells, repeats: Plan) -> None:
    cells.do("""
if seed != "seed-1":
    wait_for(f"{root}/study-seed-1.pid")
finish()
""")
    run(repeats)
    assert names(cells.events, "begin")[-1] == "study/seed-2"


def test_outcomes_are_in_the_plans_order_whatever_ended_first(cells: Cells, repeats: Plan) -> None:
    cells.do("""
if seed == "seed-0":
    wait_for(folder.replace("seed-0", "seed-2/results.json"))
    time.sleep(0.3)
finish()
""")
    seen: list[list[Outcome]] = []
    found = run(repeats, seen=seen)
    assert [[outcome.cell.seed for outcome in outcomes] for outcomes in seen] == [[1], [1, 2], [0, 1, 2]]
    assert found == seen[-1]


def test_finished_cells_are_read_and_begin_no_process(cells: Cells, repeats: Plan) -> None:
    run(repeats)
    cells.path("events").unlink()
    out = io.StringIO()
    assert [outcome.results is not None for outcome in run(repeats, out=out)] == [True] * 3
    assert not cells.path("events").exists()
    assert out.getvalue().count("finished before") == 3


def test_what_a_person_sees(cells: Cells, repeats: Plan, tmp_path: Path) -> None:
    cells.do('study.send(("failed", "the disk is full")) if seed == "seed-2" else finish()')
    out = io.StringIO()
    run(repeats, "0", "1", out=out)
    log = tmp_path / "study" / "seed-0.log"
    for part in (
        f"[1/3] demo, seed 0: on GPU 0, log in {log}\n",
        "[2/3] demo, seed 1: on GPU 1, log in ",
        "[1/3] demo, seed 0: mIoU 40.00 after 0:00:0",
        "[3/3] demo, seed 2: failed after 0:00:0",
    ):
        assert part in out.getvalue()


def test_cells_that_start_from_a_failed_warm_up_fail_with_it(cells: Cells, table: Plan) -> None:
    cells.do('study.send(("failed", "no way")) if (row, seed) == ("warm-up", "seed-0") else finish()')
    found = {(outcome.cell.row, outcome.cell.seed): outcome.failure for outcome in run(table)}
    warmup = table.cells[0].folder
    assert found == {
        ("warm-up", 0): "no way",
        ("warm-up", 1): "",
        ("CMix", 0): f"its warm-up failed: {warmup}",
        ("CMix", 1): "",
        ("all", 0): f"its warm-up failed: {warmup}",
        ("all", 1): "",
    }


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process was killed (SIGKILL), by the system for want of memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "its process died (Segmentation fault)"),
        ("sys.exit(3)", "its process ended with exit code 3 and no results"),
        (f"os._exit({EXIT_STUCK})", "it made no progress for 30 minutes and was ended"),
        ("study.close(); time.sleep(0.5)", "its process ended with exit code 0 and no results"),
    ],
)
def test_a_process_that_dies_fails_its_cell_and_the_others_go_on(
    code: str, part: str, cells: Cells, repeats: Plan, tmp_path: Path
) -> None:
    cells.do(f"""
if seed == "seed-1":
    print("my last words", flush=True)
    {code}
else:
    finish()
""")
    content = conducted(repeats, tmp_path)
    (_, line) = failures(content)  # a row each
    assert line.startswith("adapted, seed 1: ")
    assert part in line
    log = tmp_path / "study" / "seed-1.log"
    assert f"what it said last stands in {log}" in line
    assert log.read_text() == "my last words\n"
    assert [len(row["cells"]) for row in content["rows"]] == [2, 2]


def test_results_that_are_gone_or_damaged_fail_their_cell(cells: Cells, repeats: Plan) -> None:
    cells.do("""
if seed == "seed-0":
    study.send(("finished", ""))
else:
    open(f"{root}/results.json", "w").write("{")
    finish()
""")
    (gone, *damaged) = [outcome.failure for outcome in run(repeats, None)]
    assert gone.endswith("seed-0: the run finished, and its results are gone")
    assert all("results.json: damaged" in failure for failure in damaged)


def conducted(plan: Plan, folder: Path, **options: Any) -> dict[str, Any]:
    display = Display(Console(file=io.StringIO()))
    return conduct(plan, folder / "study", "t", device="cpu", display=display, workers=2, **options)


def test_the_next_cell_begins_when_a_killed_ones_own_processes_are_gone(cells: Cells, repeats: Plan) -> None:
    cells.do("""
if seed == "seed-0":
    child = subprocess.Popen(["sleep", "60"])
    open(f"{root}/child.pid", "w").write(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)
finish()
""")
    run(repeats, None)
    assert not is_alive(*cells.wait_for("child"))


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


def test_a_process_that_is_stopped_by_itself_stops_the_study(cells: Cells, repeats: Plan) -> None:
    cells.do("""
if seed == "seed-1":
    wait_for(f"{root}/study-seed-0.pid")
    study.send(("stopped", "SIGUSR1"))
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


def test_a_log_that_cannot_be_written_fails_its_cell(cells: Cells, repeats: Plan, tmp_path: Path) -> None:
    (tmp_path / "study" / "seed-1.log").mkdir(parents=True)
    found = run(repeats)
    assert [outcome.results is None for outcome in found] == [False, True, False]
    assert found[1].failure.startswith(str(tmp_path / "study" / "seed-1.log"))


def test_a_process_that_cannot_be_had_fails_its_cell(
    cells: Cells, repeats: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    found = run(repeats)
    assert all("no process could be started for it (No such file or directory)" in one.failure for one in found)


def test_every_worker_has_a_card_of_those_that_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "current_device", None)  # would take memory of the first
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cards(2, None) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-1234,2")
    assert cards(3, "cuda") == ["5", "GPU-1234", "2"]
    assert cards(4, "cpu") == [None] * 4
    with pytest.raises(UsageError, match=r"--workers 4: each needs a GPU of its own, and torch finds 3 here"):
        cards(4, None)


def test_more_workers_than_gpus_are_refused_before_anything_is_made(
    cells: Cells, repeats: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    display = Display(Console(file=io.StringIO()))
    with pytest.raises(UsageError, match="at most --workers 1"):
        conduct(repeats, tmp_path / "study", "t", device=None, display=display, workers=2)
    assert not (tmp_path / "study").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(FastudaError, match="torch finds no usable GPU here"):
        cards(2, "cuda")
    assert cards(2, None) == [None, None]


def test_a_folder_that_an_ending_run_still_holds_is_waited_for(
    repeats: Plan, monkeypatch: pytest.MonkeyPatch, beside: Callable[..., None]
) -> None:
    cell, held_now = repeats.cells[0], threading.Event()
    cell.folder.mkdir(parents=True)
    monkeypatch.setattr(run_module, "train", None)

    def end() -> None:
        with held(cell.folder, "training", wait=False):
            held_now.set()
            time.sleep(0.5)
            (cell.folder / "results.json").write_text(json.dumps(results(cell.recipe)))

    beside(end)
    held_now.wait(10)
    with StopRequest() as stop:
        found = run_cell(cell, stop, device="cpu", display=Display(Console(file=io.StringIO())), force=False)
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
