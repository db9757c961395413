"""The one exception for what a user can mend: bad files, recipes, weights or settings; and which name was meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_LONGEST_NAME = 200


class FastudaError(Exception):
    """Something the user can mend. The message names the file, field or row and says what to do.

    The command line prints it without a traceback and exits with 1 (2 for wrong usage).
    """


class UnreadableError(FastudaError):
    """A file that the system did not let be read, for want of rights, memory or a sound disk; its content is not known.

    `reason` is the system's.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class UsageError(FastudaError):
    """Wrong usage of a command or recipe: an unknown field, a value out of range. Exit code 2."""


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean X?` for the known name that is most like `name`; nothing when none is."""
    # Which takes the square of a name's length, and no known name is long.
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6) if len(name) <= _LONGEST_NAME else []
    return f"; did you mean {near[0]}?" if near else ""
