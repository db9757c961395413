"""Results of finished cells that were damaged since: one line names the file, and without it the run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_study_stop import conducted, results
from tiny import RUN

from fastuda.errors import FastudaError
from fastuda.recipe.file import load_recipe
from fastuda.study.conduct import failures
from fastuda.study.kept import kept_results
from fastuda.study.plan import Cell, plan_repeats


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return plan_repeats(load_recipe("demo"), "demo", 2, tmp_path / "study").cells[0]


def test_whole_results_are_read_as_they_were_written(cell: Cell, tmp_path: Path) -> None:
    content = results(cell.recipe)
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert kept_results(cell, tmp_path / "results.json") == content


@pytest.mark.parametrize(
    "content",
    [b"", b'{"adapted": {"la', b"[]", b"null", b"7", b"\xff\xfe\x00\xd8", b"9" * 5000, b"[" * 100_000],
    ids=["empty", "torn", "list", "null", "number", "no text", "endless", "deep"],
)  # fmt: skip
def test_what_is_no_result_at_all_is_said_in_one_line(content: bytes, cell: Cell, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(
        FastudaError, match=r"results\.json: damaged \(.+\); delete this file, and the run goes on"
    ) as e:
        kept_results(cell, tmp_path / "results.json")
    assert "\n" not in str(e.value)


def _without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def _with(value: Any, *keys: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        *((_without(key), key) for key in ("adapted", "source_only", "seconds", "data", "device", "versions", "date")),
        *((_without("adapted", "last", key), key) for key in ("miou", "iou", "subsets", "protocol")),
        (_without("adapted", "last", "iou", "road"), "other classes"),
        (_with(1.0, "adapted", "best", "iou", "l\nava"), "other classes"),
        (_with("40", "adapted", "last", "miou"), r"adapted\.last\.miou: .*number"),
        (_with(None, "adapted", "last", "miou"), r"adapted\.last\.miou"),
        (_with(float("nan"), "adapted", "best", "miou"), r"adapted\.best\.miou"),
        (_with(1e300, "adapted", "best", "miou"), r"adapted\.best\.miou"),
        (_with([], "adapted", "last"), r"adapted\.last"),
        (_with({"l\nava": "x"}, "seconds"), r"seconds\.l\\nava"),
        (_with("later", "seconds", "adapted"), r"seconds\.adapted"),
    ],
)
def test_what_a_report_cannot_be_made_of_is_named(
    change: Callable[[dict[str, Any]], None], part: str, cell: Cell, tmp_path: Path
) -> None:
    content = json.loads(json.dumps(results(cell.recipe)))
    change(content)
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(FastudaError, match=rf"results\.json: damaged \(.*{part}.*\); delete this file") as error:
        kept_results(cell, tmp_path / "results.json")
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_is_said(cell: Cell, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, why in (("pipe", r"it is a pipe \(FIFO\)"), ("folder", "it is a folder")):
        with pytest.raises(FastudaError, match=rf"{name}: cannot be read \({why}, not a file\)"):
            kept_results(cell, tmp_path / name)


TINY = [
    *(*RUN, "demo.num_source=2", "demo.num_target=2", "demo.num_val=1", "model.width=0.0625"),
    *("warmup.iterations=0", "train.iterations=1", "eval.pictures=1"),
]


def test_a_damaged_result_fails_its_cell_and_once_deleted_comes_back_from_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    monkeypatch.setattr("fastuda.study.conduct.study_chart", lambda *_: None)
    plan = plan_repeats(load_recipe("demo", [*TINY, f"data.cache={tmp_path / 'cache'}"]), "demo", 1, folder)
    before = conducted(plan, folder)
    kept = folder / "seed-0" / "results.json"
    kept.write_bytes(kept.read_bytes()[:100])
    (line,) = failures(conducted(plan, folder))
    assert line.startswith(f"adapted, seed 0: {kept}: damaged (")
    kept.unlink()
    monkeypatch.setattr("fastuda.training.iteration.adaptation_step", None)
    again = conducted(plan, folder)
    assert failures(again) == []
    assert again["rows"][0]["cells"][0]["last"] == before["rows"][0]["cells"][0]["last"]
