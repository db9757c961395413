"""The record of a run: one JSON row a line in log.jsonl, and the same numbers as TensorBoard events."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable

from fastuda.errors import FastudaError
from fastuda.files.disk import write_atomic
from fastuda.files.regular_file import read_regular
from fastuda.metrics import Scores
from fastuda.metrics.pseudo_labels import PseudoLabelScores
from fastuda.printable import on_one_line
from fastuda.runs.checkpoint.notes import STAGES
from fastuda.runs.folder import RunFolder
from fastuda.training.events import EventsFile
from fastuda.training.log_row import Row, read_row
from fastuda.training.readback import Reading

log = logging.getLogger(__name__)

_MOST_NAMED = 10
"""Damaged lines that a warning names; of more it tells how many."""


class RunLog:
    """Writes to a run's folder while entered.

    `since` is the stage and iteration that a resumed run goes on from: rows of what is about to be done again are taken
    back, and the events are made anew from the rows that stay, so that the record is that of a run that never stopped.
    `counted` is how many rows there were then. What is damaged or missing is told and does not end a run: the log is a
    record, and the checkpoint is what goes on. Entering raises FastudaError when log.jsonl is no file that can be read.
    """

    def __init__(self, folder: RunFolder, since: tuple[str, int] | None = None, counted: int = 0) -> None:
        self._folder = folder
        self._since = since
        self._counted = counted
        self._events_file: EventsFile | None = None
        self.rows = 0
        """Rows in log.jsonl."""

    def __enter__(self) -> RunLog:
        rows = [] if self._since is None else self._rewind(self._since)
        self.rows = len(rows)
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

    def evaluation(
        self, stage: str, iteration: int, scores: Scores, pseudo_labels: PseudoLabelScores | None = None
    ) -> None:
        """One evaluation's scores, and what the teacher's pseudo-labels were worth if that was looked at."""
        looked = {} if pseudo_labels is None else {"pseudo_labels": pseudo_labels.to_json()}
        self._add({"stage": stage, "iteration": iteration, "scores": scores.to_json(), **looked})

    def _add(self, row: Row) -> None:
        row = {**row, "time": time.time()}
        self._folder.append_log(row)
        self.rows += 1
        self._events(row)

    def _events(self, row: Row) -> None:
        """TensorBoard's events of one row."""
        if "scores" in row:
            scores = row["scores"]
            values = {"miou": scores["miou"], **{f"iou/{name}": iou for name, iou in scores["iou"].items()}}
            if looked := row.get("pseudo_labels"):
                shown = ("precision", "precision_above_tau", "share_kept")
                values |= {f"pseudo_labels/{name}": looked[name] for name in shown}
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
        """Take back the rows after `since`, and what is no row; returns those that stay."""
        last = STAGES.index(since[0]), since[1]
        *lines, torn = self._read().split(b"\n")
        rows: list[Row] = []
        kept, damaged = [], []
        for number, line in enumerate([*lines, torn], 1):
            row = read_row(line)
            if row is None:
                damaged.append(number)
            elif (STAGES.index(row["stage"]), row["iteration"]) <= last and not 0 < self._counted <= len(rows):
                rows.append(row)  # and not an evaluation after the checkpoint, which is made again
                kept.append(line + b"\n")
        if damaged[-1:] == [len(lines) + 1]:
            damaged.pop()  # after the last line's end there is nothing, or what a kill left of a row
        write_atomic(self._folder.log, b"".join(kept), durable=True)
        self._tell(damaged, self._counted - len(rows) - len(damaged))
        return rows

    def _read(self) -> bytes:
        path = self._folder.log
        try:
            return read_regular(path)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise FastudaError(
                f"{on_one_line(path)}: cannot be read ({error.strerror or error}); make it readable, or move it away "
                "and go on without its rows"
            ) from error

    def _tell(self, damaged: list[int], missing: int) -> None:
        path = on_one_line(self._folder.log)
        if damaged:
            named = ", ".join(str(number) for number in damaged[:_MOST_NAMED])
            more = f" and {len(damaged) - _MOST_NAMED} more" if len(damaged) > _MOST_NAMED else ""
            lines = "line" if len(damaged) == 1 else "lines"
            log.warning("%s: damaged in %s %s%s, left out; the run itself is whole", path, lines, named, more)
        if missing > 0:
            rows = "a row" if missing == 1 else f"{missing} rows"
            log.warning("%s: lacks %s from before the checkpoint; the run itself is whole", path, rows)


class NoLog(RunLog):
    """Of a rank that does not write."""

    def __enter__(self) -> RunLog:
        return self

    def _add(self, row: Row) -> None:
        pass
