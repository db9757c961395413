"""TensorBoard's events: TensorBoard reads them, and a disk that is full is one warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastuda.training.events import EventsFile

FULL = """
import logging, pathlib, resource, signal, sys
from fastuda.runs.folder import RunFolder
from fastuda.training.log import RunLog
logging.basicConfig(format="%(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
with RunLog(RunFolder(pathlib.Path(sys.argv[1]))) as log:
    for iteration in range(5):
        log._events({"stage": "adapted", "iteration": iteration, "losses": {"all": 1.0}, "lr": 0.1, "time": 0.0,
                     "iterations_per_second": 1.0, "waiting_for_data": 0.0})
"""


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    events, values = EventsFile(tmp_path / "tensorboard"), {1: 0.5, 7: float("nan"), 9: -2.25}
    for step, value in values.items():
        events.add({"adapted/loss": value, "adapted/lr": 0.25}, step, 1000.0 + step)
    events.close()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert read.Tags()["scalars"] == ["adapted/loss", "adapted/lr"]
    assert [event.value for event in read.Scalars("adapted/lr")] == [0.25] * 3
    found = read.Scalars("adapted/loss")
    assert [(event.wall_time, event.step) for event in found] == [(1000.0 + step, step) for step in values]
    assert [event.value for event in found] == pytest.approx(list(values.values()), nan_ok=True)


@pytest.mark.parametrize("room", [10, 200])
def test_a_full_disk_is_one_warning(tmp_path: Path, room: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(room)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines() == [
        f"{tmp_path / 'tensorboard'}: TensorBoard's events cannot be written (File too large); "
        "log.jsonl has the same numbers"
    ]
