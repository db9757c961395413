"""The one exception for what a user can mend: bad files, recipes, weights or settings."""

from __future__ import annotations


class FastudaError(Exception):
    """Something the user can mend. The message names the file, field or row and says what to do.

    The command line prints it without a traceback and exits with 1 (2 for wrong usage).
    """


class UsageError(FastudaError):
    """Wrong usage of a command or recipe: an unknown field, a value out of range. Exit code 2."""
