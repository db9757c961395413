"""The card: every part for real once, and what happens when parts fail, hang, run out of time or are interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from tiny import NETWORK, VIEWS
from typer.testing import CliRunner

from fastuda.errors import FastudaError, UsageError
from fastuda_bench.card import conduct, parts, process
from fastuda_bench.card.conduct import make_card
from fastuda_bench.card.order import Order
from fastuda_bench.card.parts import Part, parts_of
from fastuda_bench.card.rungs import put_together, rung_file
from fastuda_bench.card.summary import summary_of
from fastuda_bench.card.targets import targets_of
from fastuda_bench.card.tested import read_report
from fastuda_bench.ladder import rungs_on
from fastuda_bench.results import Row, write_rows
from fastuda_cli.main import app

CPU = torch.device("cpu")
SIZES = [
    *(*NETWORK, "model.width=0.0625", *VIEWS, "eval.size=[64, 32]", "runtime.loader_threads=1", "demo.size=[64, 32]"),
    *("demo.num_source=2", "demo.num_source_val=1", "demo.num_target=2", "demo.num_val=1"),
]
RUNGS = ["eager-fp32", "amp-nhwc"]


def call(folder: Path, cache: Path, *words: str) -> Result:
    """The command on a CPU, small; rungs that are compiled take minutes and are left out."""
    others = [f"step-{rung.name}" for rung in rungs_on(CPU) if rung.name not in RUNGS]
    settings = [word for setting in (*SIZES, f"data.cache={cache}") for word in ("--set", setting)]
    few = ["--iterations", "1", "--repeats", "1", "--images", "2", "--tests", "tests/test_choice.py"]
    once = ["--device", "cpu", "--skip", ",".join(others), "--out", str(folder), *few]
    return CliRunner().invoke(app, ["bench", "card", "demo", *once, *settings, *words])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Result]]:
    folder, cache = tmp_path_factory.mktemp("card"), tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder, cache, call(folder, cache)


def test_a_whole_card_on_a_cpu(made: tuple[Path, Path, Result]) -> None:
    folder, _, result = made
    logs = {path.name: path.read_text() for path in (folder / "logs").iterdir()}
    assert result.exit_code == 0, (result.output, logs)
    card = json.loads((folder / "card.json").read_text())
    states = {part["part"]: part["state"] for part in card["parts"]}
    ran = ["probe", *(f"step-{name}" for name in RUNGS), "tests", "kernels", "loader", "train", "evaluate"]
    assert [name for name in states if states[name] == "ok"] == sorted(ran, key=list(states).index)
    assert set(ran) == {name for name in states if states[name] != "left out"}
    assert {"cudnn", f"step-{rungs_on(CPU)[-1].name}"} <= states.keys()
    assert set(logs) == {f"{name}.log" for name in ran}

    rows = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("probe", "step", "kernels", "loader")}
    assert [row["rung"] for row in rows["step"]] == RUNGS
    assert [row["disagreement"] for row in rows["step"]] == [None, None]
    assert rows["step"][0]["limits"] == rows["probe"][0]["limits"] == rows["kernels"][0]["limits"]
    assert rows["step"][0]["roofline_ms"] == rows["probe"][0]["roofline_ms"] > 0
    assert rows["loader"][0]["times_the_need"] > 0
    evaluated = json.loads((folder / "evaluate.json").read_text())[0]
    assert (evaluated["images"], evaluated["seconds"]["repeats"]) == (2, 1)
    assert 0 <= evaluated["percent_waiting"]["median"] <= 100
    tests = json.loads((folder / "tests.json").read_text())
    assert tests["failed"] == 0
    assert tests["finished"]
    assert (folder / "step.png").read_bytes().startswith(b"\x89PNG")

    said = {target["what"]: target["said"] for target in card["targets"]}
    assert said["500 images evaluated"] == "not measured: 2 images were scored"
    assert said["waiting for data"].startswith(("met", "missed by"))
    for part in ("amp-nhwc", "targets", "demo", "kept" if "kept" in result.output else "probe"):
        assert part in result.output


def test_what_is_there_is_kept(made: tuple[Path, Path, Result]) -> None:
    folder, cache, _ = made
    before = {path: path.stat().st_mtime_ns for path in (folder / "logs").iterdir()}
    result = call(folder, cache)
    assert result.exit_code == 0, result.output
    assert "evaluate: kept" in result.output
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "logs").iterdir()}


def test_the_folder_of_another_card_is_refused(made: tuple[Path, Path, Result]) -> None:
    folder, cache, _ = made
    result = call(folder, cache, "--set", "method.tau=0.5")
    assert result.exit_code == 1
    assert "settings was" in result.output
    assert f"--out {folder}-2" in result.output.replace("\n", "")


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(tmp_path / "card", "demo", CPU)


def scripted(order: Order, name: str, script: str, limit: float = 60) -> Part:
    """A part that is a line of Python, with `result` as the path of its file."""
    result = order.folder / f"{name}.json"
    return Part(name, limit, result, lambda: [sys.executable, "-c", f"result = {str(result)!r}\n{script}"])


WRITES = "open(result, 'w').write('[]')"


def states(order: Order, *those: Part) -> dict[str, str]:
    made = make_card(order, parts=those)
    assert made.content == json.loads((order.folder / "card.json").read_text())
    return {part["part"]: part["state"] for part in made.content["parts"]}


def test_a_part_that_fails_stops_no_other_and_is_tried_again(order: Order, console_text: Any) -> None:
    fails = scripted(order, "probe", "print('first\\nthe reason'); raise SystemExit(3)")
    leaves_nothing, works = scripted(order, "kernels", "pass"), scripted(order, "loader", WRITES)
    made = make_card(order, parts=[fails, leaves_nothing, works])
    assert [part["state"] for part in made.content["parts"]] == ["failed", "failed", "ok"]
    assert made.exit_code == 1
    assert (made.content["parts"][0]["rc"], made.content["parts"][0]["said"]) == (3, "first\nthe reason")
    assert "the reason" in console_text(summary_of(made, order.folder))
    mended = scripted(order, "probe", WRITES)
    broken = scripted(order, "loader", "raise SystemExit('must not run again')")
    assert states(order, mended, leaves_nothing, broken) == {"probe": "ok", "kernels": "failed", "loader": "ok"}


def test_a_part_that_hangs_is_ended_with_its_children(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "_LEAST_SECONDS", 0)
    monkeypatch.setattr(process, "_GRACE_SECONDS", 0.3)
    child = order.folder / "child"
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "ignores = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'\n"
        f"one = subprocess.Popen([sys.executable, '-c', ignores])\nopen({str(child)!r}, 'w').write(str(one.pid))\n"
        "time.sleep(600)"
    )
    began = time.monotonic()
    assert states(order, scripted(order, "train", script, 3), scripted(order, "loader", WRITES)) == {
        "train": "time limit",
        "loader": "ok",
    }
    assert time.monotonic() - began < 30
    assert not alive(int(child.read_text()))


def test_children_that_a_part_leaves_behind_go_with_it(order: Order) -> None:
    child = order.folder / "child"
    script = (
        "import subprocess, sys\n"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(one.pid))\n{WRITES}"
    )
    assert states(order, scripted(order, "train", script)) == {"train": "ok"}
    assert not alive(int(child.read_text()))


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    for _ in range(40):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_without_time_parts_are_left_out_and_come_later(order: Order) -> None:
    part = scripted(order, "probe", WRITES)
    assert states(replace(order, minutes=0.3), part) == {"probe": "left out"}
    assert states(order, part) == {"probe": "ok"}
    assert states(replace(order, minutes=0), part) == {"probe": "ok"}


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Ctrl-C as a terminal gives it: a process started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_ends_the_part_and_keeps_the_summary(order: Order) -> None:
    there = order.folder / "there"
    script = f"import os, time\nopen({str(there)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"

    def interrupt() -> None:
        while not (there.exists() and there.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    made = make_card(order, parts=[scripted(order, "probe", script), scripted(order, "loader", WRITES)])
    thread.join()
    assert made.exit_code == 130
    assert [(part["part"], part["state"]) for part in made.content["parts"]] == [("probe", "interrupted")]
    assert json.loads((order.folder / "card.json").read_text())["targets"]
    assert not alive(int(there.read_text()))


def test_a_card_of_another_commit_is_refused(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    make_card(order, parts=[])
    header = order.header() | {"commit": "another"}
    monkeypatch.setattr(Order, "header", lambda self: header)
    with pytest.raises(FastudaError, match=r"commit was .* and is another.*--out .*card-2"):
        make_card(order, parts=[])
    (order.folder / "card.json").write_text("[")
    with pytest.raises(FastudaError, match=r"card\.json: not a card"):
        make_card(order, parts=[])


def test_more_minutes_lengthen_every_limit(order: Order) -> None:
    usual = [part.limit for part in parts_of(order)]
    assert [part.limit for part in parts_of(replace(order, minutes=1))] == usual
    assert [part.limit for part in parts_of(replace(order, minutes=24))] == [3 * limit for limit in usual]


def test_the_parts_come_in_the_order_of_their_worth(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [part.name for part in parts_of(order)]
    rungs = [rung.name for rung in rungs_on(CPU)]
    first = [f"step-{name}" for name in (rungs[-1], "amp-nhwc", "eager-fp32")]
    assert names[:4] == ["probe", *first]
    assert sorted(names[1 : 1 + len(rungs)]) == sorted(f"step-{name}" for name in rungs)
    assert names[1 + len(rungs) :] == ["tests", "kernels", "loader", "train", "evaluate", "cudnn"]
    with pytest.raises(UsageError, match="--skip nonsense: the parts are probe, step, tests"):
        parts_of(replace(order, skip=frozenset({"nonsense"})))
    monkeypatch.setattr(parts, "checkout", lambda: None)
    tests = next(part for part in parts_of(order) if part.name == "tests")
    assert "an installed package has no tests" in str(tests.why_not())


def test_rungs_of_several_processes_are_compared_once_there_is_a_baseline(tmp_path: Path) -> None:
    write_rows(rung_file(tmp_path, "graph"), [rung("graph", 50.0, loss=2.0)])
    (row,) = put_together(tmp_path, ["eager-fp32", "graph"])
    assert row["disagreement"] == "not compared"
    write_rows(rung_file(tmp_path, "eager-fp32"), [rung("eager-fp32", 400.0, loss=3.0)])
    rows = put_together(tmp_path, ["eager-fp32", "graph"])
    assert [row["rung"] for row in rows] == ["eager-fp32", "graph"]
    assert "the loss total of iteration 1 is 2.00000" in rows[1]["disagreement"]


def rung(name: str, ms: float, loss: float = 3.0, **more: Any) -> Row:
    return {
        "question": "step",
        "rung": name,
        "precision": "bfloat16",
        "losses": [{"total": loss}] * 2,
        "ms": {"median": ms, "spread": 0.1, "repeats": 3},
        "roofline_ms": 41.0,
        "peak_bytes": 12 * 2**30,
        **more,
    }


def header(**changes: Any) -> Row:
    return {"device": "cuda", "gpu": "NVIDIA H200", "recipe": "gta2cs", "settings": []} | changes


def said(head: Row, step: list[Row], tests: dict[str, Any] | None = None, **results: list[Row]) -> dict[str, str]:
    return {target.what: target.said for target in targets_of(head, {"step": step, **results}, tests)}


def test_targets_are_met_missed_or_not_measured() -> None:
    rows = [rung("eager-fp32", 400.0), rung("amp-nhwc", 100.0), rung("graph", 58.0)]
    found = said(header(), rows)
    assert found["ms an iteration, good"] == "met"
    assert found["ms an iteration, goal"] == "missed by 3 ms"
    assert found["times the roofline, good"] == "met"
    assert found["times the roofline, goal"].startswith("missed by 0.034")
    assert found["times as fast as eager-fp32"] == "met"
    assert found["times as fast as amp-nhwc"].startswith("missed by 0.276")
    assert found["peak memory"] == "met"
    assert found["waiting for data"] == "not measured: `train` has no row"
    elsewhere = said(header(gpu="NVIDIA H100"), rows)
    assert elsewhere["ms an iteration, good"] == "not measured: a target for gta2cs on an H200"
    assert elsewhere["times the roofline, good"] == "met"
    smaller = said(header(settings=["views.crop_size=[64, 64]"]), rows)
    assert smaller["ms an iteration, good"].startswith("not measured")


def test_a_row_that_disagrees_or_failed_meets_no_target() -> None:
    wrong = rung("graph", 20.0, disagreement="the loss total of iteration 1 is 2, that of eager-fp32 3")
    failed = {"question": "step", "rung": "fused", "error": "OutOfMemoryError: full"}
    found = said(header(), [rung("amp-nhwc", 100.0), failed, wrong])
    assert found["ms an iteration, good"] == "missed by 35 ms"
    assert found["times as fast as eager-fp32"] == "not measured: no row of eager-fp32 counts"
    assert said(header(), [wrong])["ms an iteration, good"] == "not measured: no rung counts"


def test_targets_of_data_evaluation_and_tests() -> None:
    loader = [{"question": "loader", "times_the_need": 1.5}, {"question": "loader", "times_the_need": 2.5}]
    evaluate = [{"question": "evaluate", "images": 500, "seconds": {"median": 22.0}}]
    train = [{"question": "train", "percent_waiting": {"median": 0.5}}]
    tests = {"passed": 5, "failed": 1, "skipped": 2, "finished": True}
    found = said(header(), [], tests, loader=loader, evaluate=evaluate, train=train)
    assert found["loader, times the step's need"] == found["waiting for data"] == "met"
    assert found["500 images evaluated"] == "missed by 2 s"
    assert found["GPU tests"] == "missed by 1"
    assert said(header(), [], tests | {"failed": 0})["GPU tests"] == "met"
    assert said(header(), [], tests | {"failed": 0, "passed": 0})["GPU tests"] == "not measured: none ran"
    stopped = tests | {"failed": 0, "finished": False}
    assert said(header(), [], stopped)["GPU tests"] == "not measured: stopped before the end"


def test_the_report_of_tests_ended_at_their_limit_holds_those_that_ran(order: Order, tmp_path: Path) -> None:
    file = tmp_path / "test_three.py"
    file.write_text(
        "import time, pytest\npytestmark = pytest.mark.gpu\n"
        "def test_a(): pass\ndef test_b(): assert 0\ndef test_c(): time.sleep(600)\n"
    )
    tests = next(part for part in parts_of(replace(order, tests=str(file))) if part.name == "tests")
    order.folder.mkdir()
    log = order.folder / "tests.log"
    with log.open("wb") as output:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        running = subprocess.Popen(tests.command(), cwd=tests.cwd, env=environment, stdout=output, stderr=output)
    while "test_c" not in log.read_text() and running.poll() is None:
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    running.wait(60)
    report = read_report(order.folder / "tests.xml")
    assert report is not None, log.read_text()
    assert (report["passed"], report["failed"]) == (1, 1)
    assert [name.rpartition("::")[2] for name in report["names"]] == ["test_b"]
