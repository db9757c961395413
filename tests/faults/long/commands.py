"""The real commands, thousands of times: each in a process of its own, forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fastuda.evaluation.predict
import fastuda.training.run
from fastuda_cli.main import app

assert fastuda.evaluation.predict and fastuda.training.run  # imported here, so that no command has to  # noqa: PT018

HANG_SECONDS = 60.0
CANARY = "code-was-run"
"""The file that code in a stranger's file would make, in the folder a command works in."""
_MOST_BYTES = 24 << 30
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    code: int
    """Exit code; minus the signal's number where one ended it."""
    output: str
    seconds: float
    peak_mib: int
    """Largest resident memory."""
    hung: bool = False

    def fault(self, *, memory_mib: int | None = None, codes: Sequence[int] = (0, 1, 2)) -> str | None:
        """What no command may do, in a few words: None where it ended as it should."""
        if self.hung:
            return "hang"
        if _TRACEBACK in self.output:
            return "traceback"
        if self.code < 0:
            return f"crash ({signal.Signals(-self.code).name})"
        if self.code not in codes:
            return f"exit code {self.code}"
        if self.code and not self.output.strip():
            return "no message"
        if memory_mib is not None and self.peak_mib > memory_mib:
            return f"{self.peak_mib} MiB"
        return None

    def said(self) -> str:
        """The last lines of the output, for a report."""
        return self.output.strip()[-1500:]


class Command:
    """`fastuda ARGUMENTS`, under way."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        first: Callable[[], None] | None = None,
    ) -> None:
        """Begun in `folder`, in a session of its own, with these variables beside the present ones.

        `first` is called in the new process before the command.
        """
        handle, name = tempfile.mkstemp(prefix="said-")
        self._said = Path(name)
        self._began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(arguments, folder, environment or {}, handle, first)
        os.close(handle)
        self._outcome: Outcome | None = None

    def poll(self) -> Outcome | None:
        """The outcome, once there is one."""
        if self._outcome is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._end(status, usage, hung=False)
        return self._outcome

    def wait(self, seconds: float = HANG_SECONDS) -> Outcome:
        """The outcome; a command that takes longer is killed and has hung."""
        pause = 0.002
        while (outcome := self.poll()) is None:
            if time.monotonic() - self._began > seconds:
                self.kill()
                _, status, usage = os.wait4(self.pid, 0)
                self._end(status, usage, hung=True)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return outcome

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process alone: what it has begun must end by itself."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def leftovers(self, seconds: float = 5.0) -> list[int]:
        """Processes that the command has begun and that are still there `seconds` after its end."""
        end = time.monotonic() + seconds
        while (left := _of_session(self.pid)) and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def _end(self, status: int, usage: resource.struct_rusage, *, hung: bool) -> None:
        output = self._said.read_text(errors="backslashreplace")
        self._said.unlink()
        self._outcome = Outcome(
            os.waitstatus_to_exitcode(status),
            output,
            time.monotonic() - self._began,
            usage.ru_maxrss >> 10,
            hung,
        )


def run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    seconds: float = HANG_SECONDS,
) -> Outcome:
    """What becomes of `fastuda ARGUMENTS`."""
    return Command(arguments, folder, environment).wait(seconds)


@contextmanager
def room() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _of_session(session: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                state, _, _, its_session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(its_session) == session and state != "Z":
                    found.append(int(folder.name))
    return found


def _become(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    handle: int,
    first: Callable[[], None] | None,
) -> None:
    """Be the command, in the process just forked; never returns."""
    code = 1
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, target in ((nothing, 0), (handle, 1), (handle, 2)):
            os.dup2(number, target)
        os.chdir(folder)
        os.environ.update(environment)
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
        sys.argv = ["fastuda", *arguments]
        sys.modules["__main__"] = sys.modules["fastuda_cli.main"]  # what processes that it begins will import
        if first is not None:
            first()
        app(list(arguments))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as the interpreter would
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
