"""A process that runs one cell of a study for the process that conducts it, and never outlives that one for long."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any, Literal, TextIO, cast

import torch
from rich.console import Console

from fastuda.errors import FastudaError, UsageError
from fastuda.printable import printable
from fastuda.report.display import Display
from fastuda.report.streams import GuardedStream
from fastuda.runtime.stop import StoppedError, StopRequest
from fastuda.study.plan import Cell
from fastuda.study.run import run_cell

End = Literal["finished", "stopped", "failed", "wrong usage"]
Answer = tuple[End, str]
"""What became of the cell, and why."""
_LOG_WIDTH = 160


@dataclass(frozen=True)
class Request:
    """What a process is asked to run, and how."""

    cell: Cell
    device: str | None
    force: bool
    num_threads: int
    """torch's on the CPU, on which the last bits of results depend."""
    command: list[str]
    """The study's, for the record, and for whoever finds the run's folder held."""


def serve(handle: int) -> None:
    """Run the cell that is asked for over the connection, and answer what became of it; its results are in its folder.

    Whatever comes over the connection meanwhile, and its end when the study is gone, stops the run as SIGTERM does.
    What is shown and logged goes to the standard error.
    """
    connection: Connection[Answer, Any] = Connection(handle)
    try:
        request: Request = connection.recv()
    except (EOFError, OSError):  # the study was gone before it had asked
        return
    sys.argv = request.command
    torch.set_num_threads(request.num_threads)
    _log_everything()
    # The process is the run's own: the watchdog may end it.
    with StopRequest(ends_process=True) as stop:
        threading.Thread(target=_stop_with_the_study, args=(connection,), name="study", daemon=True).start()
        answer = _answer(request, stop)
        with contextlib.suppress(OSError):
            connection.send(answer)


def _answer(request: Request, stop: StopRequest) -> Answer:
    cell = request.cell
    display = Display(Console(file=sys.stderr, width=_LOG_WIDTH)).unfailing()
    display.heading(f"{cell.row}, seed {cell.seed}, {datetime.now().astimezone().isoformat(timespec='seconds')}")
    try:
        run_cell(cell, stop, device=request.device, display=display, force=request.force)
    except StoppedError as error:
        display.note(f"stopped: {error}")
        return "stopped", str(stop.received)
    except FastudaError as error:
        display.note(f"error: {error}")
        return "wrong usage" if isinstance(error, UsageError) else "failed", str(error)
    display.note("finished")
    return "finished", ""


def _stop_with_the_study(connection: Connection[Answer, Any]) -> None:
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os.kill(os.getpid(), signal.SIGTERM)


def _log_everything() -> None:
    """What libraries print, log and warn of, in one file: the standard error."""
    sys.stdout = sys.stderr = cast(TextIO, _PlainStream(sys.stderr, lambda _: None))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("fastuda").setLevel(logging.INFO)
    # What Pillow mutters over damaged files, a line of its source with each: faults are named by the run.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")


class _PlainStream(GuardedStream):
    """A log on which nobody's file names act, and which a full disk does not end the run over."""

    def write(self, text: str) -> int:
        """Write the text with whatever cannot be shown as an escape."""
        return super().write(printable(text))
