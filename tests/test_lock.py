"""Waiting for a folder that another holds: told once, in signs of life, and ended by a stop or by patience."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fastuda.files.lock import HOLDER, HeldError, held
from fastuda.runtime.stop import StopAskedError


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Path]:
    """A folder that is held."""
    with held(tmp_path, "packing", wait=False):
        yield tmp_path


def test_a_wait_looks_several_times_a_second_and_ends_by_what_the_look_raises(
    taken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[float] = []

    def look() -> None:
        times.append(time.monotonic())
        if len(times) == 4:
            raise StopAskedError("SIGTERM: stopped")

    caplog.set_level("INFO", "fastuda")
    with pytest.raises(StopAskedError), held(taken, "packing", wait=True, look=look):
        pass
    assert max(later - one for one, later in pairwise(times)) < 0.5
    assert caplog.text.count("waiting, since another process is packing here") == 1
    assert (taken / HOLDER).exists()  # the holder's, and it goes on holding
    with pytest.raises(HeldError), held(taken, "packing", wait=False):
        pass


def test_a_folder_that_is_let_go_of_is_held_by_who_waited(tmp_path: Path) -> None:
    looks: list[int] = []
    with held(tmp_path, "packing", wait=False):
        thread = threading.Thread(target=lambda: _held_once(tmp_path, looks))
        thread.start()
        while not looks:
            time.sleep(0.01)
    thread.join(10)
    assert looks[-1] == -1
    with held(tmp_path, "packing", wait=False):
        pass


def _held_once(folder: Path, looks: list[int]) -> None:
    with held(folder, "packing", wait=True, look=lambda: looks.append(1)):
        looks.append(-1)


def test_patience_ends_with_the_holders_name(taken: Path) -> None:
    with pytest.raises(HeldError, match="is packing here"), held(taken, "packing", wait=True, patience=0.1):
        pass
