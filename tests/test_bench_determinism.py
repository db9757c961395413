"""What determinism costs: both ways measured in processes of their own, one row, and the figure made of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import SMALL
from typer.testing import CliRunner

import fastuda_bench.determinism as determinism_module
from fastuda.errors import FastudaError
from fastuda.recipe.file import load_recipe
from fastuda_bench.determinism import determinism_row, table_of
from fastuda_bench.figures import PAGES, update_pages
from fastuda_bench.results import write_rows
from fastuda_bench.step_process import window
from fastuda_cli.main import app

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Processes that take no time: their order, by the switch."""
    began: list[str] = []

    def window_of(asked: str, settings: list[str], device: torch.device, iterations: int, place: Path) -> Any:
        began.append(settings[-1].partition("=")[2])
        ms = {"false": 100.0, "true": 150.0}[began[-1]] + len(began)
        digest = "same" if began[-1] == "true" else str(len(began))
        return {"ms": ms, "way": "eager", "precision": "float32", "digest": digest}

    monkeypatch.setattr(determinism_module, "_window", window_of)
    return began


def row_of(tmp_path: Path, repeats: int = 3) -> Any:
    recipe = load_recipe("gta2cs", SMALL)
    return determinism_row(recipe, "tiny", "gta2cs", SMALL, CPU, tmp_path, repeats=repeats, iterations=2)


def test_both_ways_are_measured_in_turn(measured: list[str], tmp_path: Path, console_text: Any) -> None:
    row = row_of(tmp_path)
    assert measured == ["false", "true", "true", "false", "false", "true"]
    assert row["ms_default"] == {"repeats": 3, "median": 104.0, "spread": 4.0}
    assert row["ms_deterministic"] == {"repeats": 3, "median": 153.0, "spread": 4.0}
    assert row["ratio"]["median"] == pytest.approx(156 / 105, abs=1e-3)
    assert row["ratio"]["spread"] == pytest.approx(152 / 101 - 153 / 104, abs=1e-3)
    assert row["same_bits"] == [False, True]
    assert {"gpu", "cpu", "cores", "load_average", "versions", "commit", "date"} <= row.keys()
    text = console_text(table_of(row))
    assert "104.0" in text
    assert "153.0" in text


def test_one_repeat_says_nothing_of_bits(measured: list[str], tmp_path: Path, console_text: Any) -> None:
    assert "yes" not in console_text(table_of(row_of(tmp_path, repeats=1)))


def test_a_row_becomes_the_pages_figure(measured: list[str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    for page in PAGES:
        (root / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, root / page)
    shutil.copytree(ROOT / "bench/results", root / "bench/results")
    (root / "bench/results/determinism.json").unlink(missing_ok=True)
    update_pages(root)
    page = root / "bench/README.md"
    assert "On a GPU: `fastuda bench determinism --json bench/results/determinism.json`" in page.read_text()
    write_rows(root / "bench/results/determinism.json", [row_of(tmp_path)])
    assert update_pages(root) == ["bench/README.md"]
    assert "| `true` | 153 | 4.00 | 1.49 (0.03) | yes |" in page.read_text()
    assert "| `false` | 104 | 4.00 | 1 | no |" in page.read_text()


def test_the_switch_itself_is_refused() -> None:
    words = [word for setting in [*SMALL, "runtime.deterministic=true"] for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["bench", "determinism", "gta2cs", "--device", "cpu", *words])
    assert result.exit_code == 2
    assert "both are measured here" in result.output


def test_the_same_window_leaves_the_same_bits_and_another_seed_others() -> None:
    def digest(*settings: str) -> Any:
        found = window(load_recipe("gta2cs", [*SMALL, *settings]), CPU, 1)
        assert found["ms"] > 0
        return found["digest"]

    assert digest() == digest()
    assert digest() != digest("seed=1")


def test_a_process_measures_and_one_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastuda.memory.estimate.require_memory", lambda *_: None)  # it takes longer than the rest
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [word for setting in SMALL for word in ("--set", setting)]
    out = tmp_path / "row.json"
    once = ["--device", "cpu", "--repeats", "1", "--iterations", "1", "--json", str(out)]
    result = CliRunner().invoke(app, ["bench", "determinism", "gta2cs", *words, *once])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(out.read_text())
    assert row["question"] == "determinism"
    assert row["ms_default"]["median"] > 0
    assert row["settings"] == sorted(SMALL)
    with pytest.raises(FastudaError, match=r"with runtime\.deterministic=false failed \(rc 1\):(.|\n)*nonsense"):
        determinism_row(load_recipe("gta2cs", SMALL), "tiny", "nonsense", [], CPU, tmp_path, repeats=1, iterations=1)
