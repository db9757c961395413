"""Checkpoints written while training goes on: a thread hashes, writes and syncs what was copied off the device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fastuda.memory.out_of_memory import shortage_told
from fastuda.method.state import TrainingState
from fastuda.runs.checkpoint.model_file import ModelFile
from fastuda.runs.checkpoint.notes import Notes, StageName
from fastuda.runs.checkpoint.snapshot import Snapshot, take_snapshot
from fastuda.runs.checkpoint.store import CheckpointStore


class CheckpointWriter:
    """Writes one checkpoint at a time; entered, it has written the last one before it is left.

    `before` makes durable what a checkpoint counts on; it is called, beside training, before one gets its name. What
    goes wrong while writing is raised by the next call, or on leaving.
    """

    def __init__(self, store: CheckpointStore, before: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._before = before
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._spare: Snapshot | None = None
        self._current: Snapshot | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._join()
        if kind is None:
            self.check()

    def write(
        self,
        state: TrainingState,
        stage: StageName,
        iteration: int,
        notes: Notes,
        *,
        window: tuple[int, Mapping[str, Tensor]] = (0, {}),
        models: Sequence[ModelFile] = (),
    ) -> float:
        """Copy the state and begin to write it; the evaluated `models` first, which are its average.

        Waits for the checkpoint before, if that is still being written. Returns the seconds that training stood still.
        """
        began = time.perf_counter()
        self.wait()
        with shortage_told("copying the state for a checkpoint"):
            snapshot = take_snapshot(state, stage, iteration, notes, window=window, onto=self._spare)
        # An evaluated model is one of the three sets of weights: student, average, momentum.
        self._store.require_room(snapshot.num_bytes + len(models) * snapshot.num_bytes // 3)
        self._current = snapshot
        self._thread = threading.Thread(target=self._write, args=(snapshot, models), name="checkpoint", daemon=True)
        self._thread.start()
        return time.perf_counter() - began

    def check(self) -> None:
        """Raise what went wrong in the background, if anything did."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def wait(self) -> None:
        """Return once the checkpoint is written, or raise why it could not be."""
        self._join()
        self.check()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._spare, self._current = self._current or self._spare, None

    def _write(self, snapshot: Snapshot, models: Sequence[ModelFile]) -> None:
        try:
            snapshot.wait()
            if int(snapshot.first_nonfinite) >= 0:
                return  # the loop is about to say so, and nobody wants to go on from here
            with shortage_told("writing a checkpoint"):
                for model in models:
                    model.write(snapshot.average())
                self._before()
                self._store.write(snapshot)
        except BaseException as failure:  # carried to the thread that trains, which raises it
            self._failure = failure


class NoCheckpoints(CheckpointWriter):
    """Of a rank that does not write."""

    def write(self, *_: Any, **__: Any) -> float:
        """Nothing."""
        return 0.0
