"""Cells in processes: what begins when and on which card, how they end and die, and that none is left behind."""

from __future__ import annotations

import io
import signal
import sys
from pathlib import Path

import pytest
import torch
from cell_stand_ins import Cells, conducted, is_alive, names, run
from rich.console import Console

from fastuda.errors import FastudaError, UsageError
from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runtime.watchdog import EXIT_STUCK
from fastuda.study import conduct as conduct_module
from fastuda.study.conduct import conduct, failures
from fastuda.study.plan import Plan, plan_repeats, plan_study
from fastuda.study.run import Outcome
from fastuda.study.table import Row, Table
from fastuda.study.workers import cards

ROWS = (Row(name="source only", variant="source-only"), Row(name="CMix", variant="cmix"), Row(name="all"))


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


def test_processes_are_run_where_nobody_waits_for_children(cells: Cells, repeats: Plan) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as some that start commands leave it
    try:
        assert [outcome.failure for outcome in run(repeats)] == [""] * 3
    finally:
        signal.signal(signal.SIGCHLD, before)


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
