"""Processes that work beside the caller's, and never run its script: one that trains needs no guard for them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, TypeVar

Task = TypeVar("Task")

_LOOK_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1
# Ctrl-C is left to the parent from the first moment on.
_START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[3:]; "
    "from fastuda.demo.crew import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
)


class CrewError(Exception):
    """A process of the crew ended before its work did; says how."""


def counts(function: Callable[[Task], int], tasks: Sequence[Task], workers: int) -> Generator[int, None, None]:
    """The sum of what `function` gives for the tasks done so far, again and again; close it to end the processes.

    It comes a few times a second whether or not it has grown, so that a caller can leave. `function` is one of a
    module's own. What it raises is raised here; CrewError when a process was ended by something else.
    """
    remaining, done = iter(tasks), 0
    crew: list[_Worker] = []
    try:
        # New interpreters, not forks: the caller may hold threads or a GPU context that must not be copied.
        for _ in range(min(workers, len(tasks))):
            crew.append(_Worker.started())
        for worker in crew:
            worker.give(function, next(remaining))
        busy = [*crew]
        while busy:
            ready = wait([worker.connection for worker in busy], _LOOK_SECONDS)
            for worker in [one for one in busy if one.connection in ready]:
                done += worker.answer()
                try:
                    worker.give(function, next(remaining))
                except StopIteration:
                    busy.remove(worker)
            yield done
    finally:
        for worker in crew:
            worker.process.kill()  # it has nothing left to do, or may be seconds from its first answer
        for worker in crew:
            worker.process.wait()
            worker.connection.close()


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]

    @classmethod
    def started(cls) -> _Worker:
        own, theirs = Pipe()
        with theirs:
            handle = theirs.fileno()
            command = [sys.executable, "-c", _START, str(handle), str(os.getpid()), *map(str, sys.path)]
            return cls(subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[handle]), own)

    def give(self, function: Callable[[Task], int], task: Task) -> None:
        try:
            self.connection.send((function, task))
        except ConnectionError as error:
            raise self._ended() from error

    def answer(self) -> int:
        try:
            found = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        if isinstance(found, Exception):
            raise found
        count: int = found
        return count

    def _ended(self) -> CrewError:
        code = self.process.wait()
        if code < 0:
            return CrewError("was ended by something else, for want of memory perhaps; run again")
        return CrewError(f"ended with exit code {code}; what it wrote to the standard error says why")


def serve(handle: int, parent: int) -> None:
    """Do what comes over the connection, answer with its result or what it raised, and die with the parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before this
        os._exit(1)
    with Connection(handle) as connection:
        while True:
            try:
                function, task = connection.recv()
            except EOFError:
                return
            try:
                answer = function(task)
            except Exception as error:  # the parent's to handle
                error.add_note(traceback.format_exc())
                answer = error
            connection.send(answer)
