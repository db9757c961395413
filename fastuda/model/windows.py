"""Where windows lie that slide over a length."""

from __future__ import annotations


def starts(length: int, window: int, step: int) -> list[int]:
    """Where windows begin so that they cover a length, the last one ending with it."""
    return [*range(0, length - window, step), length - window]
