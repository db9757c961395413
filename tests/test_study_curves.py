"""mIoU and pseudo-labels by iteration in a study: what a cell keeps of them, and the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_study_pseudo_labels import looked
from test_study_report import FOLDER, ORIGIN, record
from test_study_run import TINY, conducted

from fastuda.runs.checkpoint.notes import Record, StageNotes
from fastuda.study.curves import curve_chart, curve_figure, has_curves
from fastuda.study.plan import Plan, plan_study
from fastuda.study.report import report
from fastuda.study.run import Outcome
from fastuda.study.table import Row, Table

ROWS = (
    Row(name="bare", variant="source-only"),
    Row(name="statistics", variant="statistics"),
    Row(name="control", variant="control"),
    Row(name="all"),
)


@pytest.fixture
def plan() -> Plan:
    return plan_study(Table(title="t", rows=ROWS), "demo", (0, 1), (), FOLDER)


def points(*found: tuple[int, float]) -> list[dict[str, float]]:
    return [{"iteration": iteration, "miou": miou} for iteration, miou in found]


def content(plan: Plan, *, looks: bool = True, history: bool = True) -> dict[str, Any]:
    outcomes = []
    for row, readings in plan.of_row.items():
        for reading in readings:
            own = points((0, 31.0)) if row == "statistics" else points((3, 35.0), (6, 40.0 + reading.cell.seed))
            stage = {"last": record(40.0), "best": record(40.0), **({"history": own} if history else {})}
            if looks and row == "all":
                stage["pseudo_labels"] = [looked(3, 10.0), looked(6, 20.0)]
            results = {"source_only": {"last": record(30.0), "best": record(30.0)}, "adapted": stage}
            seconds = {"seconds": dict.fromkeys(results, 1.0)}
            outcomes.append(Outcome(reading.cell, {**results, **seconds, "data": {}, "device": "CPU", **ORIGIN}))
    return report(plan, outcomes, FOLDER)


def test_a_cells_history_begins_with_the_network_that_it_starts_from(plan: Plan) -> None:
    bare, statistics, control, _ = content(plan)["rows"]
    assert "history" not in bare["cells"][0]
    assert statistics["cells"][0]["history"] == points((0, 31.0))
    assert control["cells"][1]["history"] == points((0, 30.0), (3, 35.0), (6, 41.0))


def lines_of(found: dict[str, Any], panel: int) -> dict[str, list[tuple[float, float]]]:
    """The thick lines of a panel: points by label."""
    axes = curve_figure(found).axes[panel]
    named = [line for line in axes.lines if not line.get_label().startswith("_")]
    return {line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in named}


def test_the_lines_are_the_means_of_seeds_and_a_row_scored_once_is_a_mark(plan: Plan) -> None:
    found = content(plan)
    miou = lines_of(found, 0)
    assert miou["control"] == miou["all"] == [(0, 30.0), (3, 35.0), (6, 40.5)]
    assert miou["statistics"] == [(0, 31.0)]
    assert "bare" not in miou
    assert lines_of(found, 1) == {"all": [(3, 90.0), (6, 90.0)]}
    assert lines_of(found, 2) == {"all": [(3, 10.0), (6, 20.0)]}
    assert [axes.get_ylabel() for axes in curve_figure(content(plan, looks=False)).axes] == ["mIoU, percent"]


def test_runs_of_before_have_no_history_and_keep_the_curves_of_their_pseudo_labels(plan: Plan) -> None:
    earlier = content(plan, history=False)
    assert all("history" not in cell for row in earlier["rows"] for cell in row["cells"])
    assert has_curves(earlier)
    assert lines_of(earlier, 0) == {"all": [(3, 90.0), (6, 90.0)]}
    assert not has_curves(content(plan, looks=False, history=False))


def test_a_seed_without_its_history_is_said(plan: Plan) -> None:
    found = content(plan)
    found["rows"][2]["cells"][1].pop("history")
    found["rows"][3]["cells"][0]["history"] = points((0, 30.0), (4, 35.0))
    miou = lines_of(found, 0)
    assert miou["control (1 of 2 seeds)"] == [(0, 30.0), (3, 35.0), (6, 40.0)]
    assert miou["all"] == [(0, 30.0)]


def test_the_curves_are_written(plan: Plan, tmp_path: Path) -> None:
    curve_chart(tmp_path / "curves.png", content(plan))
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000


def test_an_evaluation_that_is_made_again_takes_the_place_of_its_earlier_self() -> None:
    notes = StageNotes()
    for iteration, miou in ((2, 20.0), (4, 30.0), (6, 40.0), (4, 31.0)):
        notes.add_score(Record(iteration=iteration, miou=miou, iou={}, protocol="full", by_protocol={}))
    assert [(one.iteration, one.miou) for one in notes.history] == [(2, 20.0), (4, 31.0)]
    assert notes.last is not None
    assert notes.last.iteration == 4


def test_a_study_without_pseudo_labels_has_curves_too(cache: Path, tmp_path: Path) -> None:
    rows = (Row(name="bare", variant="source-only"), Row(name="control", variant="control"))
    settings = [*TINY, "train.evaluate_every=2", f"data.cache={cache}"]
    plan = plan_study(Table(title="t", rows=rows), "demo", (0,), settings, tmp_path / "s", control=False)
    (history,) = [cell["history"] for cell in conducted(plan, tmp_path / "s")["rows"][1]["cells"]]
    assert [one["iteration"] for one in history] == [0, 2, 3]
    assert (tmp_path / "s" / "t-curves.png").stat().st_size > 10_000
