"""A polite stop: which signals and times ask for it, what it leaves alone, and when it is no longer polite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from whole_runs import TINY

import fastuda
import fastuda.training.iteration as iteration_module
from fastuda.errors import UsageError
from fastuda.runtime.stop import EXIT_STOPPED, SIGNALS, StopAskedError, StopRequest, duration


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_nothing_ends(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number.name


def test_the_first_reason_stays() -> None:
    with StopRequest(time.monotonic() - 1) as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == "SIGUSR1"


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_ctrl_c_ends_a_commands_process_at_once(first: signal.Signals) -> None:
    code = f"""
import os, signal, time
from fastuda.runtime.stop import StopRequest
with StopRequest(ends_process=True) as stop:
    os.kill(os.getpid(), {int(first)})
    assert stop.received
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 128 + signal.SIGINT


def test_a_second_ctrl_c_does_so_with_standard_output_closed() -> None:
    code = """
import os, signal, sys, time
from fastuda.runtime.stop import StopRequest
os.close(1)
sys.stdout = None
with StopRequest(ends_process=True):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 128 + signal.SIGINT


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_ctrl_c_in_a_callers_process_is_pythons_own(first: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest() as stop:
        os.kill(os.getpid(), first)
        assert stop.received == first.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == before


_TWICE = """
import os, signal, sys
import fastuda.training.iteration as iteration
from fastuda_cli.main import app

def step(*_):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)

iteration.warmup_step = step
app(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "command", [("train", "demo"), ("train", "demo", "--repeat", "2"), ("study", "table4", "--base", "demo")]
)
def test_a_second_ctrl_c_ends_each_command_with_its_exit_code(
    command: tuple[str, ...], cache: Path, tmp_path: Path
) -> None:
    chosen = [part for setting in (*TINY, f"data.cache={cache}") for part in ("--set", setting)]
    whole = [sys.executable, "-c", _TWICE, *command, "--run", str(tmp_path / "run"), "--device", "cpu", *chosen]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr


def test_a_second_ctrl_c_out_of_python_leaves_a_run_to_go_on_with(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, trains, before = iter(range(100)), iteration_module.adaptation_step, signal.getsignal(signal.SIGINT)

    def interrupted(*arguments: Any) -> Any:
        for _ in range(2 * (next(calls) == 4)):
            os.kill(os.getpid(), signal.SIGINT)
        return trains(*arguments)

    settings = [*TINY, f"data.cache={cache}", "runtime.deterministic=true"]
    asked: dict[str, Any] = {"settings": settings, "device": "cpu", "display": False}
    with monkeypatch.context() as patch:
        patch.setattr(iteration_module, "adaptation_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fastuda.train("demo", tmp_path / "run", **asked)
    assert not torch.are_deterministic_algorithms_enabled()
    assert signal.getsignal(signal.SIGINT) is before
    results = fastuda.train("demo", tmp_path / "run", resume=True, **asked)
    assert (results["resumed"], results["adapted"]["last"]["iteration"]) == (1, 6)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGUSR1])
def test_schedulers_that_ask_twice_are_answered_once(second: signal.Signals) -> None:
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), second)
        assert stop.received == "SIGUSR1"


def test_a_deadline_asks_for_a_stop_too() -> None:
    with StopRequest(time.monotonic() + 0.05) as stop:
        assert stop.received is None
        time.sleep(0.06)
        assert stop.received == "--max-time is over"


def test_work_that_can_be_begun_again_is_left_early() -> None:
    seen = []
    with StopRequest() as stop:
        progress = stop.watching(lambda done, total: seen.append((done, total)))
        progress(1, 3)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopAskedError, match="SIGTERM"):
            progress(2, 3)
        progress(3, 3)  # what is complete is complete
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        assert all(signal.getsignal(number) != old for number, old in zip(SIGNALS, before, strict=True))
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(RuntimeError, match="inside"), StopRequest():
        raise RuntimeError("inside")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outside_the_main_thread_signals_are_left_to_others() -> None:
    before = signal.getsignal(signal.SIGINT)
    received: list[str | None] = []

    def work() -> None:
        with StopRequest() as stop:
            received.append(stop.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert received == [None]
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h", 28800), ("90m", 5400), ("1d12h", 129600), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), ("08:00:00", 28800),
     ("0:30", 1800), ("1-00:00", 86400), (" 2h ", 7200)],
)  # fmt: skip
def test_times_as_people_and_schedulers_write_them(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "h", "-8h", "8x", "0s", "8h 30", "1e3s", "nan", "9" * 400 + "h"])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="--max-time"):
        duration(text)


def test_the_code_that_schedulers_requeue_on() -> None:
    assert EXIT_STOPPED == os.EX_TEMPFAIL == 75
