"""Pseudo-labels in a study: which rows look at them, and what the report, the tables and the curves make of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_study_report import FOLDER, ORIGIN, record
from test_study_run import TINY, conducted

from fastuda.errors import FastudaError, UsageError
from fastuda.recipe.file import dump_recipe, load_recipe
from fastuda.runs.identity import differences, fields_of
from fastuda.study.kept import kept_results
from fastuda.study.plan import Plan, plan_repeats, plan_study
from fastuda.study.printed import pseudo_label_tables
from fastuda.study.report import report
from fastuda.study.run import Outcome, _refuse_another
from fastuda.study.table import Row, Table, load_table

ROWS = (Row(name="bare", variant="source-only"), Row(name="CMix", variant="cmix"), Row(name="all"))
SHARES = ("share_true", "share_predicted", "share_kept", "precision", "recall", "precision_above_tau")


def looked(iteration: int, kept: float, names: tuple[str, ...] = ("road", "car")) -> dict[str, Any]:
    one = {**dict.fromkeys(SHARES, 90.0), "recall_above_tau": kept}
    classes = {name: {**one, "precision_above_tau": None if name == "car" else 90.0} for name in names}
    overall = {"precision": 70.0, "precision_above_tau": 90.0, "share_kept": kept}
    return {"iteration": iteration, "tau": 0.95, **overall, "classes": classes}


def results(stage: str, history: list[dict[str, Any]]) -> dict[str, Any]:
    scored = {"last": record(40.0), "best": record(40.0), **({"pseudo_labels": history} if history else {})}
    return {stage: scored, "seconds": {stage: 1.0}, "data": {}, "device": "CPU", **ORIGIN}


@pytest.fixture
def plan() -> Plan:
    return plan_study(Table(title="t", rows=ROWS), "demo", (0, 1), (), FOLDER, control=False)


def content(plan: Plan, rows: tuple[str, ...] = ("CMix", "all")) -> dict[str, Any]:
    outcomes = []
    for row, readings in plan.of_row.items():
        for reading in readings:
            history = [looked(3, 10.0), looked(6, 20.0 + 4 * reading.cell.seed)] if row in rows else []
            outcomes.append(Outcome(reading.cell, results(reading.stage, history)))
    return report(plan, outcomes, FOLDER)


def test_a_study_looks_where_pseudo_labels_are_made_and_a_user_has_the_last_word() -> None:
    cells = plan_study(load_table("summary"), "demo", (0,), (), FOLDER).cells
    looks = {cell.row: cell.recipe.eval.pseudo_labels for cell in cells}
    assert looks == {
        "warm-up": False,
        "source only, further": False,
        "statistics alone": False,
        "oracle": False,
        "DACS": True,
        "DACS + HTCM": True,
        "all": True,
        "edge": True,
    }
    silent = plan_study(load_table("summary"), "demo", (0,), ["eval.pseudo_labels=false"], FOLDER)
    assert not any(cell.recipe.eval.pseudo_labels for cell in silent.cells)


def test_a_folder_of_a_study_that_did_not_look_is_of_the_same_runs() -> None:
    one, other = load_recipe("demo"), load_recipe("demo", ["eval.pseudo_labels=true"])
    assert differences(fields_of(one), fields_of(other)) == []


def test_the_report_has_every_history_and_each_rows_last_evaluation(plan: Plan) -> None:
    bare, cmix, _ = content(plan)["rows"]
    assert bare["pseudo_labels"] is None
    assert "pseudo_labels" not in bare["cells"][0]
    assert [one["iteration"] for one in cmix["cells"][1]["pseudo_labels"]] == [3, 6]
    assert cmix["pseudo_labels"]["share_kept"] == {"n": 2, "mean": 22.0, "std": 2.8284}
    assert cmix["pseudo_labels"]["classes"]["road"]["recall_above_tau"]["mean"] == 22.0
    assert cmix["pseudo_labels"]["classes"]["car"]["precision_above_tau"]["mean"] is None


def test_the_table_has_precision_and_recall_row_by_row(plan: Plan, console_text: Callable[[Any], str]) -> None:
    (table,) = pseudo_label_tables(content(plan), 200)
    lines = console_text(table).splitlines()
    assert next(line for line in lines if "road" in line).count("90 / 22") == 2
    assert "– / 22" in next(line for line in lines if "│ car" in line)
    assert next(line for line in lines if "pixels above τ" in line).count("22") == 2
    assert len(pseudo_label_tables(content(plan), 33)) == 2
    assert pseudo_label_tables(content(plan, ()), 200) == []
    earlier = content(plan)
    for row in earlier["rows"]:
        row.pop("pseudo_labels")
    assert pseudo_label_tables(earlier, 200) == []


def test_a_history_that_is_none_fails_its_run(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    cell, names = plan_repeats(recipe, "demo", 1, tmp_path).cells[0], recipe.classes.build().names
    scores = {"miou": 4.0, "iou": dict.fromkeys(names, 4.0), "subsets": {}, "protocol": "full"}
    whole = {"last": scores, "best": scores}
    origin = {"seconds": {}, "data": {}, "device": "CPU", **ORIGIN}
    for history, part in (
        ([looked(3, 10.0, names)], None),
        ([looked(3, 10.0)], "adapted: pseudo-labels of other classes than the recipe's"),
        ([looked(3, 1000.0, names)], r"adapted\.pseudo_labels\.0\.share_kept"),
        ({}, r"adapted\.pseudo_labels"),
    ):
        path = tmp_path / "results.json"
        path.write_text(json.dumps({"source_only": whole, "adapted": {**whole, "pseudo_labels": history}, **origin}))
        if part is None:
            assert kept_results(cell, path)["adapted"]["pseudo_labels"] == history
            continue
        with pytest.raises(FastudaError, match=part):
            kept_results(cell, path)
    damaged = {**whole, "history": [{"iteration": 3, "miou": 1000.0}]}
    path.write_text(json.dumps({"source_only": whole, "adapted": damaged, **origin}))
    with pytest.raises(FastudaError, match=r"adapted\.history\.0\.miou"):
        kept_results(cell, path)


def test_a_study_leaves_histories_and_curves(cache: Path, tmp_path: Path) -> None:
    settings = [*TINY, f"data.cache={cache}"]
    rows = (Row(name="bare", variant="source-only"), Row(name="CMix", variant="cmix"))
    plan = plan_study(Table(title="t", rows=rows), "demo", (0,), settings, tmp_path / "s", control=False)
    found = conducted(plan, tmp_path / "s")
    (history,) = [cell["pseudo_labels"] for cell in found["rows"][1]["cells"]]
    assert [one["iteration"] for one in history] == [3]
    assert json.loads((tmp_path / "s" / "t.json").read_text())["rows"][1]["cells"][0]["pseudo_labels"] == history
    assert (tmp_path / "s" / "t-curves.png").stat().st_size > 10_000
    settings.append("eval.pseudo_labels=false")
    silent = plan_study(Table(title="t", rows=rows), "demo", (0,), settings, tmp_path / "q", control=False)
    assert "pseudo_labels" not in conducted(silent, tmp_path / "q")["rows"][1]["cells"][0]


def test_a_warm_up_of_an_earlier_study_with_target_statistics_is_the_same_run(tmp_path: Path) -> None:
    settings = ["eval.batch_norm=target"]
    warmup = plan_study(Table(title="t", rows=ROWS), "demo", (0,), settings, tmp_path, control=False).cells[0]
    asked = warmup.folder.with_name("seed-0.asked.toml")
    asked.parent.mkdir()
    before = warmup.recipe.model_copy(update={"eval": load_recipe("demo", settings).eval})
    lines = [line for line in dump_recipe(before).splitlines() if not line.startswith("pseudo_labels")]
    asked.write_text("\n".join(lines))
    _refuse_another(warmup)
    asked.write_text("\n".join(lines).replace("ema_decay = 0.98", "ema_decay = 0.5"))
    with pytest.raises(UsageError, match=r"method\.ema_decay"):
        _refuse_another(warmup)
