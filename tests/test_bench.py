"""The measurements run, and the pages' figures come from their files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from fastuda.errors import FastudaError
from fastuda.recipe.file import load_recipe
from fastuda_bench.figures import PAGES, stale_pages, update_pages
from fastuda_bench.formats import format_rows
from fastuda_bench.prepare import prepare_rows
from fastuda_bench.results import write_rows

ROOT = Path(__file__).resolve().parents[1]


def test_the_pages_figures_are_those_of_the_results_files() -> None:
    assert stale_pages(ROOT) == [], "run: fastuda bench figures"


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_and_file_that_a_page_shows_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    shown = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in shown if not (ROOT / page).parent.joinpath(link).exists()] == []
    assert "@@" not in text


def test_the_demos_figures_are_of_the_classes_that_it_has() -> None:
    names = load_recipe("demo").classes.build().names
    demo, summary = (json.loads((ROOT / "bench/results" / f"{name}.json").read_text()) for name in ("demo", "summary"))
    assert tuple(demo["adapted"]["iou"]) == names
    assert [tuple(row["last"]["iou"]) for row in summary["rows"]] == [names] * len(summary["rows"])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The pages and results of the repository, to change."""
    for page in PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    shutil.copytree(ROOT / "bench/results", tmp_path / "bench/results")
    return tmp_path


def test_a_changed_result_makes_its_page_stale_and_is_written_into_it(copy: Path) -> None:
    path = copy / "bench/results/prepare.json"
    rows = json.loads(path.read_text())
    rows[0]["pairs_per_second"]["median"] = 123.44
    path.write_text(json.dumps(rows))
    assert stale_pages(copy) == ["fastuda/data/README.md"]
    assert update_pages(copy) == ["fastuda/data/README.md"]
    assert "| 123.4 |" in (copy / "fastuda/data/README.md").read_text()
    assert stale_pages(copy) == []


def test_an_unknown_mark_and_a_missing_file_are_named(copy: Path) -> None:
    page = copy / "README.md"
    page.write_text("<!-- figures: nonsense -->\n<!-- /figures -->\n")
    with pytest.raises(FastudaError, match=r"README\.md: no figures are called nonsense; there are demo"):
        stale_pages(copy)
    page.write_text("<!-- figures: demo -->\n<!-- /figures -->\n")
    (copy / "bench/results/demo.json").unlink()
    with pytest.raises(FastudaError, match=r"demo\.json: cannot be read"):
        stale_pages(copy)


def test_a_cards_files_become_the_pages_figures(copy: Path) -> None:
    page = copy / "README.md"
    assert page.read_text().count("Not measured yet. On a GPU: `fastuda bench card --out bench/results/card`") == 2
    machine = {"gpu": "NVIDIA H200", "power_limit_w": 700.0, "cores": 16, "cpu": "a CPU", "date": "2026-11-28"}
    machine |= {"versions": {"torch": "2.13"}, "settings": [], "recipe": "gta2cs", "commit": "abc"}
    ms = {"median": 58.0, "spread": 0.5, "repeats": 3}
    rung = {"adds": "a graph", "ms": ms, "mfu": 0.37, "peak_bytes": 12e9, "work": {"flops": 17e12}, "batch_size": 2}
    rows = [
        {"rung": "eager-fp32", **rung, **machine, "ms": ms | {"median": 400.0}, "disagreement": None},
        {"rung": "fused", "adds": "kernels", "error": "OutOfMemoryError: a | b", **machine},
        {"rung": "compile", **rung, **machine, "ms": ms | {"median": 20.0}, "disagreement": "the loss is wrong"},
        {"rung": "graph", **rung, **machine, "disagreement": None},
    ]
    target = {"what": "ms an iteration, goal", "wanted": "≤ 55 ms", "found": "58 ms", "said": "missed by 3 ms"}
    parts = [{"part": "probe", "state": "ok"}, {"part": "cudnn", "state": "left out"}]
    card = machine | {"targets": [target], "parts": parts, "doubts": []}
    write_rows(copy / "bench/results/card/step.json", rows)
    (copy / "bench/results/card/card.json").write_text(json.dumps(card))
    assert update_pages(copy) == ["README.md"]
    text = page.read_text()
    assert "| ms an iteration, goal | ≤ 55 ms | 58 ms | missed by 3 ms |" in text
    assert "Without figures: `cudnn` (left out). `gta2cs`, commit `abc`, on NVIDIA H200 (700 W)" in text
    assert "| `graph`: a graph | **58.00** | 0.50 | – | 6.90 | 37 % | 12,000 |" in text
    assert "| `fused`: kernels | OutOfMemoryError: a \\| b |" in text
    assert "20.00" not in text


def test_prepare_rows_measure_each_format(tmp_path: Path) -> None:
    (row,) = prepare_rows(2, 1, 1, ("jpeg",))
    assert row["format"] == "jpeg"
    assert row["pairs_per_second"]["median"] > 0
    assert row["peak_rss_mib"]["median"] > 10
    assert row["commit"]
    write_rows(tmp_path / "rows.json", [row])
    assert json.loads((tmp_path / "rows.json").read_text()) == json.loads(json.dumps([row]))


def test_format_rows_know_what_is_lossless() -> None:
    errors = {row["format"]: row["max_error"] for row in format_rows(1, 1)}
    assert errors["raw"] == 0
    assert errors["png (fastuda)"] == 0
    assert any(error > 0 for name, error in errors.items() if "jpeg" in name and "2000" not in name)
