"""TOML that users write, read within bounds: whatever it holds ends in tables of a sensible depth or in one error."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from fastuda.errors import UsageError
from fastuda.files.text_file import read_text
from fastuda.printable import brief, on_one_line

FILE_LIMIT = 1 << 20
_DEPTH = 16
# tomllib takes time that grows with the square of a dotted key's parts. This search takes none that does: it begins at
# no second character of a word, and gives nothing back.
_LONG_KEY = re.compile(rf"""(?:(?<![\w-])(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{_DEPTH}}}""")


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file; UsageError names the file, which is called `what`, and what is wrong with it."""
    name = on_one_line(path)
    try:
        text = read_text(path, FILE_LIMIT)
    except OSError as error:
        raise UsageError(f"{name}: cannot read this {what} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: cannot read this {what} (save it as UTF-8 text: {error})") from error
    return parse_toml(text, name)


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """The tables of a TOML text; UsageError names `origin` and what is wrong."""
    try:
        if _LONG_KEY.search(text):
            raise ValueError(f"a key has more than {_DEPTH} parts")
        table = tomllib.loads(text)
        _require_sensible(table)
    except RecursionError as error:
        raise UsageError(f"{origin}: not valid TOML: tables or arrays lie in one another too deep") from error
    except ValueError as error:  # tomllib's own, and Python's for integers of thousands of digits
        raise UsageError(f"{origin}: not valid TOML: {on_one_line(str(error), 500)}") from error
    return table


def _require_sensible(table: dict[str, Any]) -> None:
    """ValueError for tables in tables without end, and for NUL characters, which neither names nor paths can have."""
    level: list[tuple[str, Any]] = [*table.items()]
    for _ in range(_DEPTH):
        inner: list[tuple[str, Any]] = []
        for key, value in level:
            if "\0" in key:
                raise ValueError(f"the key {brief(key)} holds a NUL character")
            if isinstance(value, str) and "\0" in value:
                raise ValueError(f"{brief(key)} holds a NUL character")
            if isinstance(value, dict):
                inner.extend(value.items())
            elif isinstance(value, list):
                inner.extend((key, one) for one in value)
        level = inner
        if not level:
            return
    raise ValueError(f"{brief(level[0][0])} lies more than {_DEPTH} tables or arrays deep")
