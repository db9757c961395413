"""A command's standard output and standard error, which may be files on full disks and pipes that nobody reads."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from fastuda.errors import FastudaError
from fastuda.report.streams import GuardedStream
from fastuda_cli.console import complain


@contextmanager
def guarded_streams() -> Iterator[None]:
    """A command's standard streams: one that cannot be written costs neither a traceback nor the exit code.

    What goes to standard error is lost then; the command ends for want of standard output, unless it makes do, with one
    line and exit code 1, or in silence where a pipe was closed.
    """
    streams = sys.stdout, sys.stderr
    if sys.stdout is not None:
        sys.stdout = cast(TextIO, GuardedStream(sys.stdout, _refuse_output))
    if sys.stderr is not None:
        sys.stderr = cast(TextIO, GuardedStream(sys.stderr, lambda _: None))
    try:
        yield
    except FastudaError as error:  # out of a help page
        complain(str(error))
        sys.exit(1)
    finally:
        sys.stdout, sys.stderr = streams
        for stream in streams:
            _abandon_unwritable(stream)


def _refuse_output(error: OSError) -> None:
    if error.errno == errno.EPIPE:
        raise error  # which rich and click know as the usual end of a filter
    raise FastudaError(
        f"standard output cannot be written ({error.strerror or error}); make room there, or redirect it elsewhere"
    ) from error


def _abandon_unwritable(stream: TextIO | None) -> None:
    """Let nothing be left of a stream that Python would fail to write out at its end, with an exit code of its own."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
