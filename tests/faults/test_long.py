"""The long harness sees what goes wrong, and counts it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from faults.long.commands import Outcome
from faults.long.disks import _untidy
from faults.long.parts import Part, Try

from fastuda_bench.fault_figures import faults

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(0, "done", 1, 500), None),
        (Outcome(1, "error: x.png: damaged", 1, 500), None),
        (Outcome(1, "Traceback (most recent call last):\nKeyError", 1, 500), "traceback"),
        (Outcome(-11, "", 1, 500), "crash (SIGSEGV)"),
        (Outcome(-9, "", 60, 500, hung=True), "hang"),
        (Outcome(75, "stopped", 1, 500), "exit code 75"),
        (Outcome(1, " \n", 1, 500), "no message"),
        (Outcome(0, "done", 1, 5000), "5000 MiB"),
    ],
)
def test_what_no_command_may_do_is_seen(outcome: Outcome, fault: str | None) -> None:
    assert outcome.fault(memory_mib=3000) == fault


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        ("packing\nerror: /small/a.png: no space left on the disk", None),
        ("packing", "0 errors"),
        ("error: a\nerror: b", "2 errors"),
        ("error: /small/a\n1\n2\n3\n4", "a message of 5 lines"),
        ("error: no space left", "no file named"),
    ],
)
def test_a_message_of_a_full_disk_is_one_line_that_names_the_file(output: str, fault: str | None) -> None:
    assert _untidy(output, Path("/small")) == fault


def test_a_part_counts_kinds_failures_and_the_largest_of_what_it_measures() -> None:
    tries = [Try("cut", None, {"seconds": 1.0}), Try("flip", "not told", {"seconds": 3.0}), Try("done", count=0)]
    result = Part("p", "title", 3, lambda count: tries[:count]).result()
    assert result["kinds"] == {"cut": 1, "flip": 1}
    assert (result["tries"], result["failed"], result["failures"]) == (2, 1, ["flip: not told"])
    assert result["largest"] == {"seconds": 3.0}
    stamped = result | {"date": "2026-01-01", "versions": {"torch": "2"}, "cores": 2, "cpu": "x86", "commit": "abc"}
    table = faults({"p": stamped})
    assert "| title | 2 | 2 | 1 | seconds 3 |" in table
    assert "On 2 cores of an x86, torch 2, 2026-01-01, commit `abc`" in table


def test_a_command_that_falls_over_hangs_or_leaves_processes_is_seen() -> None:
    cases = {
        "None": "None 0 0",
        "1 / 0": "traceback 1 0",
        "time.sleep(100)": "hang -9 0",
        "os.abort()": "crash (SIGABRT) -6 0",
        "os.fork() or time.sleep(100)": "None 0 1",
    }
    program = f"""
        import os, time
        from pathlib import Path
        from faults.long.commands import Command
        for first in {list(cases)}:
            command = Command(["recipes"], Path("."), first=lambda: eval(first))
            outcome = command.wait(2 if first.startswith("time") else 60)
            print(outcome.fault(), outcome.code, len(command.leftovers(0.2)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=TESTS, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == list(cases.values())


def test_two_damaged_checkpoints_by_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "faults.long", "checkpoints", "--share", "0.008", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checkpoints: 2 tries, 0 failures" in done.stdout
    assert not (tmp_path / "out").exists()  # a share of the tries is no result
