"""The one exception for what a user can mend: bad files, recipes, weights or settings."""

from __future__ import annotations


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
