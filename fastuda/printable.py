"""Names and values of users as text that a terminal, a log or a page can show: nothing in it acts, nothing is lost."""

from __future__ import annotations

import os
import re

# Control characters, whatever changes the direction of writing or ends a line, and what is no text at all. Names of
# files that are no UTF-8 reach Python as lone surrogates.
_UNSEEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_UNPRINTABLE = re.compile(f"[{_UNSEEN}]")
_NO_LINE = re.compile(f"[\\t\\n{_UNSEEN}]")
_LONGEST_NAME = 500


def printable(text: str) -> str:
    """Text, of one line or several, with whatever cannot be shown as an escape: `\\x1b`, `\\xdf` for a stray byte."""
    return _UNPRINTABLE.sub(_escaped, text)


def on_one_line(text: str | os.PathLike[str], length: int | None = None) -> str:
    """A name or a path likewise, its line ends as `\\n`, and cut after `length` characters."""
    line = _NO_LINE.sub(_escaped, str(text))
    return line if length is None else shortened(line, length)


def brief(value: object, length: int = 80) -> str:
    """A value as Python writes it, on one line and cut after `length` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; tables in tables in tables
        return f"a value of type {type(value).__name__} that is too large to show"
    return on_one_line(text, length)


def is_plain(text: str) -> bool:
    """Whether it is a name as tensors and files have them: short, and every character can be seen."""
    return len(text) <= _LONGEST_NAME and text.isprintable()


def shortened(text: str, length: int = 500) -> str:
    """The text, or its beginning and how long it is."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}.get(match[0], ascii(match[0])[1:-1])
