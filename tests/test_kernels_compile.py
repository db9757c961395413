"""Every kernel compiles for the GPUs that people have, fits their shared memory and spills no register."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED_MEMORY = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}
"""Bytes a program may use, by compute capability: A100, RTX 30xx, H100 and H200."""


@pytest.mark.parametrize("capability", [86, 90])
def test_every_kernel_compiles(capability: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/compile_kernels.py"), str(capability)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    sources = "".join(path.read_text() for path in ROOT.glob("kernels/fastuda_kernels/*/*.py"))
    assert {row["kernel"] for row in rows} == set(re.findall(r"^def (\w+_kernel)\(", sources, re.M))
    assert [row for row in rows if row["stack"]] == []
    assert [row for row in rows if row["shared"] > SHARED_MEMORY[capability]] == []
