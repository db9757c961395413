"""A run that hangs is ended with everything that its threads did; one that lives is left alone."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from whole_runs import TINY

from fastuda.runtime.watchdog import EXIT_STUCK, Watchdog

HANGING = """
import threading, time
from fastuda.runtime.watchdog import Watchdog
def the_worker(): time.sleep(60)
threading.Thread(target=the_worker, daemon=True).start()
def the_main_loop(): time.sleep(60)
with Watchdog(0.02, "continue with --run here --resume", ends_process=True):
    the_main_loop()
"""
LIVING = """
import time
from fastuda.runtime.watchdog import Watchdog
with Watchdog(0.02, "", ends_process=True) as dog:
    progress = dog.watching(lambda done, total: None)
    for i in range(8):
        time.sleep(0.3)
        progress(i, 8) if i % 2 else dog.alive()
time.sleep(2)
"""


def test_a_hanging_run_is_ended_with_all_stacks_and_advice() -> None:
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=50)
    assert ended.returncode == EXIT_STUCK
    assert time.monotonic() - began < 40
    for part in ("the_worker", "the_main_loop", "no progress for 0.02 minutes; continue with --run here --resume"):
        assert part in ended.stderr


def test_it_ends_where_nobody_can_be_told() -> None:
    began = time.monotonic()
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-c", HANGING], stderr=full, timeout=50)
    assert ended.returncode == EXIT_STUCK
    assert time.monotonic() - began < 25


WAITING = """
import time
from fastuda.runtime.watchdog import Watchdog
with Watchdog(0.02, "", ends_process=True) as dog:
    progress = dog.watching(lambda done, total: None)
    for _ in range(300):
        time.sleep(0.2)
        progress(3, 8)
"""


def test_a_count_that_stays_where_it_is_is_no_sign_of_life() -> None:
    ended = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, timeout=50)
    assert ended.returncode == EXIT_STUCK


def test_a_living_run_is_left_alone_and_nothing_watches_afterwards() -> None:
    ended = subprocess.run([sys.executable, "-c", LIVING], capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_zero_never_ends_anything() -> None:
    with Watchdog(0, "") as dog:
        dog.alive()
        assert dog._thread is None


def test_in_a_callers_process_a_hanging_run_is_told_once_until_it_goes_on_and_nothing_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dump_traceback_later", "cancel_dump_traceback_later"):
        monkeypatch.delattr(faulthandler, name)  # a caller's own may be set
    waited = threading.Event()

    def the_worker() -> None:
        waited.wait(20)

    thread = threading.Thread(target=the_worker, name="a worker")
    thread.start()
    with Watchdog(0.005, "continue there") as dog:
        time.sleep(1.2)
        assert len(caplog.records) == 1
        dog.alive()
        time.sleep(0.6)
    waited.set()
    thread.join()
    assert len(caplog.records) == 2
    for part in ("no progress for 0.005 minutes", "and continue there", "a worker:", "the_worker", "MainThread:"):
        assert part in caplog.text


HANGING_COMMAND = """
import sys, time
import fastuda.training.iteration as iteration
from fastuda_cli.main import app
iteration.warmup_step = lambda *_: time.sleep(60)
app(sys.argv[1:])
"""


@pytest.mark.parametrize("more", [[], ["--repeat", "2"]])
def test_a_command_that_hangs_ends_with_its_exit_code(more: list[str], cache: Path, tmp_path: Path) -> None:
    settings = [*TINY, f"data.cache={cache}", "runtime.watchdog_minutes=0.1"]
    chosen = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-c", HANGING_COMMAND, "train", "demo", "--run", str(tmp_path / "run"), *more, *chosen]
    ended = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, timeout=100)
    assert ended.returncode == EXIT_STUCK, ended.stderr
    assert "error: no progress for 0.1 minutes; continue with `fastuda train " in ended.stderr
