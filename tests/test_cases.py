"""Situations of users, recreated outside the repository: each says by its exit code whether behaviour is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = sorted((Path(__file__).resolve().parents[2] / "shared/cases").glob("*/run.sh"))


@pytest.mark.parametrize("script", CASES or [None], ids=lambda script: script.parent.name if script else "none")
def test_a_users_situation(script: Path | None) -> None:
    fastuda = Path(sys.executable).parent / "fastuda"
    if script is None or not fastuda.exists():
        pytest.skip("needs shared/cases beside this checkout, and fastuda installed")
    environment = {**os.environ, "FASTUDA": str(fastuda)}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
