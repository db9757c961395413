"""Every kernel compiles for the GPUs that people have, fits their shared memory and spills no register."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fastuda.errors import FastudaError
from fastuda_bench import figures, kernel_resources
from fastuda_bench.kernel_launches import recorded_launches
from fastuda_bench.kernel_resources import SHARED_MEMORY, largest, resource_rows, table_of
from fastuda_bench.results import Row
from fastuda_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
CAPABILITIES = (86, 90)
"""The least shared memory, and what the project is meant for; a third would make the test half as long again."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return resource_rows(CAPABILITIES)


def kernels_in_the_sources() -> set[str]:
    sources = "".join(path.read_text() for path in ROOT.glob("kernels/fastuda_kernels/*/*.py"))
    return set(re.findall(r"^def (\w+_kernel)\(", sources, re.M))


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_compiles(capability: int, rows: list[Row]) -> None:
    own = [row for row in rows if row["capability"] == capability]
    assert {row["kernel"] for row in own} == kernels_in_the_sources()
    assert [row for row in own if row["stack_bytes"]] == []
    assert [row for row in own if row["shared_bytes"] > SHARED_MEMORY[capability]] == []


def test_a_row_says_what_was_compiled_and_by_what(rows: list[Row]) -> None:
    row = next(row for row in rows if row["kernel"] == "choose_kernel" and row["constants"]["C"] == 150)
    assert (row["question"], row["operation"], row["size"]) == ("resources", "masked_mix", "1×150×1² → 1²")
    assert set(row["versions"]) == {"torch", "triton"}
    assert 0 < row["registers"] <= 255
    # Each capability has the same launches, and none twice.
    launches = Counter((row["capability"], row["kernel"], json.dumps(row), row["size"]) for row in rows)
    assert set(launches.values()) == {1}
    assert len({sum(row["capability"] == capability for row in rows) for capability in CAPABILITIES}) == 1


def test_launches_are_recorded_and_nothing_stays_replaced() -> None:
    from fastuda_kernels.masked_mix import triton as masked_mix

    launch = masked_mix.launch
    assert {one.kernel.__name__ for one in recorded_launches()} == kernels_in_the_sources()
    assert masked_mix.launch is launch


def test_the_largest_of_a_kernels_launches_is_shown(console_text: Callable[[Any], str]) -> None:
    stamp = {"versions": {"triton": "3.9.0"}, "date": "2026-01-01"}
    base = {"operation": "mix", "kernel": "mix_kernel", "capability": 90, **stamp}
    rows = [
        base | {"registers": 30, "shared_bytes": 2048, "stack_bytes": 0},
        base | {"registers": 40, "shared_bytes": 1024, "stack_bytes": 8},
    ]
    rows.append(rows[0] | {"capability": 80})
    cells = ["mix: mix_kernel", "30 / 2.0 / 0", "40 / 2.0 / 8"]
    assert largest(rows) == (["kernel", "sm_80", "sm_90"], [cells])
    text = console_text(table_of(rows))
    assert "compiled by Triton 3.9.0" in text
    assert re.search(r"mix: mix_kernel +30 / 2\.0 / 0 +40 / 2\.0 / 8", text)
    head, _, line, _, note, _ = figures._resources(rows).split("\n")
    assert (head, line) == ("| kernel | sm_80 | sm_90 |", "| mix: mix_kernel | 30 / 2.0 / 0 | 40 / 2.0 / 8 |")
    assert note.endswith("compiled by Triton 3.9.0, 2026-01-01.")


def test_a_capability_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FastudaError, match="kernels do not compile for compute capability 3"):
        resource_rows([3])


def test_the_command_writes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"operation": "mix", "kernel": "mix_kernel", "registers": 30, "shared_bytes": 2048, "stack_bytes": 0}
    monkeypatch.setattr(kernel_resources, "_in_a_process", lambda number: [json.dumps(line | {"capability": number})])
    out = tmp_path / "rows.json"
    result = CliRunner().invoke(app, ["bench", "resources", "--capability", "80,90", "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert [row["capability"] for row in json.loads(out.read_text())] == [80, 90]
    assert "mix_kernel" in result.output
    refused = CliRunner().invoke(app, ["bench", "resources", "--capability", "8.0"])
    assert refused.exit_code != 0
    assert "--capability 8.0: whole numbers" in refused.output
