"""The tools that read the code: formatting, lint, types, and the one direction of imports."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(*command: str) -> None:
    tool = Path(sys.executable).with_name(command[0])
    executable = str(tool) if tool.exists() else shutil.which(command[0])
    assert executable, f"{command[0]} is not installed: pip install -e '.[dev]'"
    done = subprocess.run([executable, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    _run("ruff", "check", ".")


def test_code_is_formatted() -> None:
    _run("ruff", "format", "--check", ".")


def test_types_hold_strictly() -> None:
    _run("mypy")


def test_imports_go_one_way() -> None:
    _run("lint-imports")
