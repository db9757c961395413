"""A cell's process as its study sees it: begun with a card of its own, asked to stop, its answer or how it died."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from fastuda.errors import FastudaError
from fastuda.files.disk import write_failure
from fastuda.runtime.stop import SIGNALS
from fastuda.runtime.watchdog import EXIT_STUCK
from fastuda.study.cell import Answer, Request

# A new interpreter, not a fork: the study may hold threads that must not be copied. Its own modules' folders, not the
# folder that it is called in, in which any file may have a module's name.
_START = "import sys; sys.path[:] = sys.argv[2:]; from fastuda.study.cell import serve; serve(int(sys.argv[1]))"


@dataclass
class CellProcess:
    """A process that runs a cell, in a session of its own: Ctrl-C at the terminal reaches the study alone."""

    request: Request
    card: str | None
    log: Path
    """All that it shows, after what earlier ones of the cell did."""
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Answer]
    began: float = field(default_factory=time.monotonic)
    _was_asked: bool = False

    @classmethod
    def started(cls, request: Request, card: str | None) -> CellProcess:
        """Begin to run a cell, on the GPU that CUDA calls `card`; FastudaError when no process or log can be had."""
        log = log_of(request.cell.folder)
        # Logs are read while they grow. Threads that wait must not take the cores of other cells: they would spin.
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"PYTHONUNBUFFERED": "1"}
        if card is not None:
            environment["CUDA_VISIBLE_DEVICES"] = card
        own, theirs = Pipe()
        with theirs:
            handle = theirs.fileno()
            command = [sys.executable, "-c", _START, str(handle), *map(str, sys.path)]
            try:
                with log.open("ab") as file:
                    process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment,
                        pass_fds=[handle], start_new_session=True,
                    )  # fmt: skip
            except OSError as error:
                own.close()
                raise _not_started(request, log, error) from error
        begun = cls(request, card, log, process, own)
        with contextlib.suppress(OSError):  # it is dead already, which shows when it is asked for its answer
            own.send(request)
        return begun

    def stop(self) -> bool:
        """Let it save what it has and end; whether it was not asked to before."""
        if self._was_asked:
            return False
        self._was_asked = True
        with contextlib.suppress(OSError):
            self.connection.send(None)
        return True

    def answer(self) -> Answer | None:
        """What became of the cell; None while it is run."""
        is_over = self._is_over()  # before the look at what it said last
        try:
            if self.connection.poll():
                answer: Answer = self.connection.recv()
                return answer
        except (EOFError, OSError):
            pass
        return self._death() if is_over else None

    def kill(self) -> None:
        """Kill what there still is of it, its own processes too: after its answer nothing is left to do."""
        if self.process.returncode is None:  # else its number may be another's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and wait until it is gone, which frees its card."""
        self.kill()
        self.process.wait()
        self.connection.close()

    @property
    def seconds(self) -> float:
        """For how long it has been there."""
        return time.monotonic() - self.began

    def _is_over(self) -> bool:
        """Whether it ended; it is not reaped, so that its group keeps its number."""
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # where SIGCHLD is ignored nobody's end can be waited for
            return True

    def _death(self) -> Answer:
        """What became of a cell whose process ended without an answer."""
        self.end()
        code = self.process.returncode
        if -code in SIGNALS:  # before it could heed them, when nothing had begun
            return "stopped", signal.Signals(-code).name
        if code == EXIT_STUCK:
            how = f"it made no progress for {self.request.cell.recipe.runtime.watchdog_minutes:g} minutes and was ended"
        elif code == -signal.SIGKILL:
            how = "its process was killed (SIGKILL), by the system for want of memory perhaps"
        elif code < 0:
            how = f"its process died ({signal.strsignal(-code) or -code})"
        else:
            how = f"its process ended with exit code {code} and no results"
        return "failed", f"{how}; what it said last stands in {self.log}"


def log_of(folder: Path) -> Path:
    """The log beside a cell's folder."""
    return folder.with_name(f"{folder.name}.log")


def _not_started(request: Request, log: Path, error: OSError) -> FastudaError:
    if error.filename is not None and os.fspath(error.filename) == os.fspath(log):
        return write_failure(log, error)
    return FastudaError(f"{request.cell.folder}: no process could be started for it ({error.strerror or error})")
