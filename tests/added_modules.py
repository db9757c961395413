"""Modules that a test adds to a package of fastuda for as long as it runs: a contributor's file, as it would lie."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fastuda.model.family import family_of
from fastuda.recipe.model import _tables

CONTRIBUTING = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"


def documented(folder: str) -> dict[str, str]:
    """The files below `folder` that CONTRIBUTING.md shows, word for word, by their path below it."""
    blocks = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", CONTRIBUTING.read_text(), re.S)
    found = {path.removeprefix(f"{folder}/"): text for path, text in blocks if path.startswith(f"{folder}/")}
    assert found, f"CONTRIBUTING.md shows no file of {folder}"
    return found


@contextmanager
def added(package: str, folder: Path, files: Mapping[str, str]) -> Iterator[None]:
    """While entered, `files`, by path below the package, are modules of it; they lie in `folder`."""
    before = set(sys.modules)
    home = importlib.import_module(package)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    home.__path__.append(str(folder))
    importlib.invalidate_caches()
    _forget()
    try:
        yield
    finally:
        home.__path__.remove(str(folder))
        for name in set(sys.modules) - before:
            if name.startswith(f"{package}."):
                del sys.modules[name]
        _forget()


def _forget() -> None:
    _tables.cache_clear()
    family_of.cache_clear()
