"""The record of a run: one JSON row a line in log.jsonl, and the same numbers as TensorBoard events."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from typing import Any

from fastuda.checkpoint.notes import STAGES
from fastuda.disk import write_atomic
from fastuda.engine.readback import Reading
from fastuda.errors import UnreadableError
from fastuda.events import EventsFile
from fastuda.metrics import Scores
from fastuda.run_folder import RunFolder

log = logging.getLogger(__name__)

Row = dict[str, Any]


class RunLog:
    """Writes to a run's folder while entered.

    `since` is the stage and iteration that a resumed run goes on from: rows of what is about to be done again are taken
    back, and the events are made anew from the rows that stay, so that the record is that of a run that never stopped.
    """

    def __init__(self, folder: RunFolder, since: tuple[str, int] | None = None) -> None:
        self._folder = folder
        self._since = since
        self._events_file: EventsFile | None = None

    def __enter__(self) -> RunLog:
        rows = [] if self._since is None else self._rewind(self._since)
        shutil.rmtree(self._folder.tensorboard, ignore_errors=True)
        try:
            self._events_file = EventsFile(self._folder.tensorboard)
        except OSError as error:
            self._do_without(error)
        for row in rows:
            self._events(row)
        return self

    def __exit__(self, *_: object) -> None:
        self._event(EventsFile.close)

    def training(self, stage: str, reading: Reading) -> None:
        """Mean losses since the last row, iterations a second, share of waiting for data, and learning rate."""
        self._add(
            {
                "stage": stage,
                "iteration": reading.iteration,
                "losses": reading.losses,
                "iterations_per_second": reading.iterations_per_second,
                "waiting_for_data": reading.waited,
                "lr": reading.lr,
            }
        )

    def evaluation(self, stage: str, iteration: int, scores: Scores) -> None:
        """One evaluation's scores."""
        self._add({"stage": stage, "iteration": iteration, "scores": scores.to_json()})

    def _add(self, row: Row) -> None:
        row = {**row, "time": time.time()}
        self._folder.append_log(row)
        self._events(row)

    def _events(self, row: Row) -> None:
        """TensorBoard's events of one row."""
        if "scores" in row:
            scores = row["scores"]
            values = {"miou": scores["miou"], **{f"iou/{name}": iou for name, iou in scores["iou"].items()}}
        else:
            values = {f"loss/{name}": loss for name, loss in row["losses"].items()}
            values |= {name: row[name] for name in ("iterations_per_second", "waiting_for_data", "lr")}
        curves = {f"{row['stage']}/{name}": math.nan if value is None else value for name, value in values.items()}
        self._event(lambda events: events.add(curves, row["iteration"], row["time"]))

    def _event(self, write: Callable[[EventsFile], None]) -> None:
        """Write events; a disk that refuses them does not end a run, whose rows say the same."""
        if self._events_file is None:
            return
        try:
            write(self._events_file)
        except OSError as error:
            self._do_without(error)

    def _do_without(self, error: OSError) -> None:
        self._events_file = None
        log.warning(
            "%s: TensorBoard's events cannot be written (%s); log.jsonl has the same numbers",
            self._folder.tensorboard, error.strerror or error,
        )  # fmt: skip

    def _rewind(self, since: tuple[str, int]) -> list[Row]:
        """Take back the rows after `since`, and torn ones; returns those that stay. Raises UnreadableError."""
        try:
            lines = self._folder.log.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            reason = error.strerror or str(error)
            raise UnreadableError(
                f"{self._folder.log}: cannot be read ({reason}); see that it can be and go on with --resume", reason
            ) from error
        last = STAGES.index(since[0]), since[1]
        rows = []
        for line in lines:
            try:
                row = json.loads(line)
                if (STAGES.index(row["stage"]), int(row["iteration"])) <= last and ("scores" in row or "losses" in row):
                    rows.append(row)
            except (ValueError, KeyError, TypeError):
                continue
        write_atomic(self._folder.log, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        return rows
