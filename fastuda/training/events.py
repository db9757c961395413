"""TensorBoard's file of events, written in the caller's thread, so that a full disk is the caller's error."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar


class EventsFile:
    """A new file of scalars in the folder `path`, which is made; OSError from here and from each method.

    TensorBoard's own writer has a thread, which prints a traceback for a disk that is full.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{now:010.0f}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = (path / name).open("wb")
        self._records = RecordWriter(self._file)
        metadata = SourceMetadata(writer="fastuda")
        self._write(Event(wall_time=now, file_version="brain.Event:2", source_metadata=metadata))

    def add(self, values: Mapping[str, float], step: int, at: float) -> None:
        """A number for each of several curves, by tag, at iteration `step` and `at` seconds of the epoch."""
        event = Event(wall_time=at, step=step)
        for tag, value in values.items():
            event.summary.MergeFrom(scalar(tag, value))  # type: ignore[no-untyped-call]
        self._write(event)

    def close(self) -> None:
        """No more is written."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()
