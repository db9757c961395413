"""Processes that stand in for those of a study's cells, and do what a test says."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_study_stop import results

from fastuda.recipe.file import load_recipe
from fastuda.report.display import Display
from fastuda.runtime.stop import StopRequest
from fastuda.study import cell_process
from fastuda.study.conduct import conduct
from fastuda.study.plan import Plan
from fastuda.study.run import Outcome
from fastuda.study.schedule import run_in_processes

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


def run(plan: Plan, *of_cuda: str | None, seen: list[list[Outcome]] | None = None, **options: Any) -> list[Outcome]:
    display = Display(Console(file=options.pop("out", io.StringIO()), width=300))
    keep = (lambda _: None) if seen is None else seen.append
    with StopRequest(options.pop("deadline", None)) as stop:
        return run_in_processes(
            plan, stop, cards=of_cuda or (None, None), device="cpu", display=display, finished=keep, **options
        )


def conducted(plan: Plan, folder: Path, **options: Any) -> dict[str, Any]:
    display = Display(Console(file=io.StringIO()))
    return conduct(plan, folder / "study", "t", device="cpu", display=display, workers=2, **options)


def is_alive(process: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def names(events: Sequence[Sequence[str]], what: str) -> list[str]:
    return [event[1] for event in events if event[0] == what]
