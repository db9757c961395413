"""Text files that users wrote, on any system: with a byte order mark, as UTF-16, with Windows' line ends."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_text(path: Path) -> str:
    """The file's text with `\\n` as line ends: UTF-8, or UTF-16, with a byte order mark or without.

    Raises OSError when it cannot be read, and UnicodeDecodeError (a ValueError) when it is neither.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None) or _unmarked(data)
    return re.sub(r"\r\n?", "\n", data.decode(encoding))


def read_lines(path: Path) -> list[str]:
    """The lines that say something, without margins: no blank ones, no comments (`#` at the start or after a space).

    Raises as `read_text` does.
    """
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in read_text(path).split("\n"))
    return [line for line in lines if line]


def _unmarked(data: bytes) -> str:
    """UTF-16 of mostly Latin letters has a zero in every other byte; UTF-8 text has none."""
    if b"\0" not in data:
        return "utf-8"
    return "utf-16-le" if data[1::2].count(0) >= data[::2].count(0) else "utf-16-be"
