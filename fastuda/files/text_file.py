"""Text files that users wrote, on any system: with a byte order mark, as UTF-16, with Windows' line ends."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from fastuda.files.regular_file import read_regular

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


LIST_LIMIT = 256 << 20
"""Bytes of a text file: a list of some million names."""


def read_text(path: Path, limit: int = LIST_LIMIT) -> str:
    """The file's text with `\\n` as line ends: UTF-8, or UTF-16, with a byte order mark or without.

    Raises OSError when it cannot be read, is no regular file or has more than `limit` bytes, and UnicodeDecodeError
    (a ValueError) when it is neither.
    """
    data = read_regular(path, limit)
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None) or _unmarked(data)
    return re.sub(r"\r\n?", "\n", data.decode(encoding))


def without_comment(line: str) -> str:
    """The line without a comment (from a `#` at its start or after a space) and margins."""
    return re.sub(r"(^|\s)#.*", "", line).strip()


def _unmarked(data: bytes) -> str:
    """UTF-16 of mostly Latin letters has a zero in every other byte; UTF-8 text has none."""
    if b"\0" not in data:
        return "utf-8"
    return "utf-16-le" if data[1::2].count(0) >= data[::2].count(0) else "utf-16-be"
