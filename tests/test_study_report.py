"""A study's numbers from made results: means, deviations, gains seed by seed, failures; tables and picture of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fastuda.study.chart import study_chart, wrapped
from fastuda.study.conduct import failures
from fastuda.study.plan import Plan, Reading, plan_study
from fastuda.study.printed import class_tables, score_table, verdict_table
from fastuda.study.report import report, write_report
from fastuda.study.run import Outcome
from fastuda.study.spread import plus_minus, spread, spread_of_records
from fastuda.study.table import Row, Table
from fastuda_bench.study_figures import study

FOLDER = Path("runs/x")
ROWS = (
    Row(name="source only", variant="source-only", paper=35.3, paper_iou={"road": 60.0}),
    Row(name="CMix", variant="cmix", paper=52.1),
    Row(name="all"),
)
# mIoU by row and seed.
MIOU = {
    "source only": (30.0, 34.0, 31.0), "source only, further": (32.0, 33.0, 32.0), "CMix": (36.0, 39.0, 37.0),
    "all": (38.0, 45.0, 32.5),
}  # fmt: skip


ORIGIN = {"versions": {"torch": "2"}, "date": "2026-01-02 03:04"}


def record(miou: float) -> dict[str, Any]:
    iou = {"road": miou + 10, "car": miou - 10, "train": None}
    return {"iteration": 7, "protocol": "full", "miou": miou, "iou": iou, "subsets": {"two": miou}}


def results(miou: float, stage: str) -> dict[str, Any]:
    scored = {"last": record(miou), "best": {**record(miou + 1), "chosen_on": "evaluation set"}}
    return {stage: scored, "seconds": {stage: 12.0}, "data": {"source": "ab"}, "device": "CPU", **ORIGIN}


@pytest.fixture
def plan() -> Plan:
    settings = ("source.root=/secret", "target.root=/secret", "method.tau=0.9")
    return plan_study(Table(title="A title", pair="A → B", rows=ROWS), "demo", (0, 1), settings, FOLDER, control=False)


@pytest.fixture
def controlled() -> Plan:
    return plan_study(Table(title="A title", rows=ROWS), "demo", (0, 1, 2), (), FOLDER)


def outcomes(plan: Plan, *, failing: str = "") -> list[Outcome]:
    found = []
    for row, readings in plan.of_row.items():
        for reading, miou in zip(readings, MIOU[row], strict=False):
            failed = row == failing and reading.cell.seed == 1
            scored = None if failed else results(miou, reading.stage)
            found.append(Outcome(reading.cell, scored, "the loss was not finite" if failed else ""))
    return found


def test_a_report_of_a_command_that_is_no_utf_8_is_written(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/fastuda", "study", "--run", "runs/\udcfc"])
    write_report(tmp_path / "study.json", report(plan, outcomes(plan), FOLDER))
    text = (tmp_path / "study.json").read_text("utf-8")
    assert "A → B" in text
    assert json.loads(text)["command"] == "fastuda study --run 'runs/\udcfc'"


def test_spread_is_mean_and_sample_deviation_of_what_there_is() -> None:
    assert spread([1.0, 2.0, 4.5]) == {"n": 3, "mean": 2.5, "std": 1.8028}
    assert spread([None, 3.0]) == {"n": 1, "mean": 3.0, "std": None}
    assert spread([None]) == {"n": 0, "mean": None, "std": None}


def test_a_number_shows_its_deviation_if_it_has_one() -> None:
    assert plus_minus(spread([57.0, 58.0])) == "57.5 ± 0.7"
    assert plus_minus(spread([57.25])) == "57.2"
    assert plus_minus(spread([2.0, 2.0]), signed=True) == "+2.0 ± 0.0"
    assert plus_minus(spread([])) == "–"


def test_records_are_spread_class_by_class_and_absent_classes_left_out() -> None:
    found = spread_of_records([record(30.0), {**record(40.0), "iou": {"road": 40.0, "car": 20.0, "train": 5.0}}])
    assert found["iou"]["road"]["mean"] == 40.0
    assert found["iou"]["train"] == {"n": 1, "mean": 5.0, "std": None}
    assert found["subsets"]["two"]["mean"] == 35.0


def test_each_row_has_mean_deviation_best_and_the_papers_number(plan: Plan) -> None:
    content = report(plan, outcomes(plan), FOLDER)
    source_only, cmix, _ = content["rows"]
    assert source_only["last"]["miou"] == {"n": 2, "mean": 32.0, "std": 2.8284}
    assert cmix["best"]["miou"]["mean"] == 38.5
    assert cmix["cells"][0]["best"]["chosen_on"] == "evaluation set"
    assert [row["paper"] for row in content["rows"]] == [35.3, 52.1, None]
    assert (cmix["recipe"], cmix["cells"][1]["run"]) == ("demo+cmix", "cmix/seed-1")


def test_time_is_that_of_every_run_with_or_without_a_row_of_its_own(plan: Plan) -> None:
    finished = outcomes(plan)
    warmup = replace(finished[0].cell, folder=FOLDER / "warm-up-of-one-row" / "seed-0")
    content = report(plan, [*finished, Outcome(warmup, results(1.0, "source_only"))], FOLDER)
    assert content["seconds"] == 12.0 * (len(finished) + 1)


def test_gains_are_taken_seed_by_seed(plan: Plan) -> None:
    content = report(plan, outcomes(plan), FOLDER)
    assert content["rows"][1]["gain"] == {"n": 2, "mean": 5.5, "std": 0.7071}
    assert content["rows"][2]["gain"]["mean"] == 9.5


def test_gains_over_the_control_are_told_row_by_row(controlled: Plan) -> None:
    content = report(controlled, outcomes(controlled), FOLDER)
    assert content["control"] == "source only, further"
    source_only, control, cmix, everything = (row["gain_over_control"] for row in content["rows"])
    assert control is None
    assert source_only["by_seed"] == {"0": -2.0, "1": 1.0, "2": -1.0}
    assert cmix["by_seed"] == {"0": 4.0, "1": 6.0, "2": 5.0}
    # 5 ± 4.3027 · 1 / √3
    assert (cmix["mean"], cmix["std"], cmix["interval"], cmix["verdict"]) == (5.0, 1.0, [2.5159, 7.4841], "better")
    assert everything["verdict"] == "nothing can be told yet"
    assert everything["seeds_needed"] > 3
    assert content["rows"][2]["gain"]["mean"] == pytest.approx(5.6667, abs=1e-3)


def test_a_seed_whose_control_failed_has_no_gain_over_it(controlled: Plan) -> None:
    content = report(controlled, outcomes(controlled, failing="source only, further"), FOLDER)
    assert content["rows"][2]["gain_over_control"]["by_seed"] == {"0": 4.0, "2": 5.0}
    unfinished = report(controlled, outcomes(controlled)[:3], FOLDER)
    assert unfinished["rows"][2]["gain_over_control"] == {"n": 0, "mean": None, "std": None, "by_seed": {}}


def test_verdicts_are_printed_with_every_seeds_gain(controlled: Plan, console_text: Callable[[Any], str]) -> None:
    content = report(controlled, outcomes(controlled), FOLDER)
    text = console_text(verdict_table(content))
    (cmix,) = [line for line in text.splitlines() if "CMix" in line]
    for part in ("+4.0, +6.0, +5.0", "+5.0", "+2.5 to +7.5", "better"):
        assert part in cmix
    (everything,) = [line for line in text.splitlines() if "│ all" in line]
    assert everything.rstrip(" │").endswith(str(content["rows"][3]["gain_over_control"]["seeds_needed"]))
    assert "nothing can be told yet" in everything
    assert "seeds to tell: how many in all would" in text
    assert "by chance" in text
    scores = console_text(score_table(content))
    assert "+5.0 ± 1.0" in next(line for line in scores.splitlines() if "CMix" in line)


def test_a_seed_without_a_gain_is_seen_and_what_no_hundred_seeds_tell_is_said(
    controlled: Plan, console_text: Callable[[Any], str]
) -> None:
    content = report(controlled, outcomes(controlled, failing="source only, further"), FOLDER)
    text = console_text(verdict_table(content))
    assert "+4.0, –, +5.0" in next(line for line in text.splitlines() if "CMix" in line)
    same = [Outcome(one.cell, results(30.0, reading.stage)) for one, reading in _read(controlled)]
    text = console_text(verdict_table(report(controlled, same, FOLDER)))
    assert text.count("more than 100") == 3


def _read(plan: Plan) -> list[tuple[Outcome, Reading]]:
    readings = [reading for found in plan.of_row.values() for reading in found]
    return list(zip(outcomes(plan), readings, strict=True))


def test_where_all_is_told_nothing_is_said_of_further_seeds(console_text: Callable[[Any], str]) -> None:
    plan = plan_study(Table(title="t", rows=(ROWS[1],)), "demo", (0, 1, 2), (), FOLDER)
    text = console_text(verdict_table(report(plan, outcomes(plan), FOLDER)))
    assert "better" in text
    assert "seeds to tell" not in text


def test_a_control_that_is_the_first_row_has_one_column_of_gains(console_text: Callable[[Any], str]) -> None:
    rows = (Row(name="source only, further", variant="control"), *ROWS[1:])
    plan = plan_study(Table(title="t", rows=rows), "demo", (0, 1, 2), (), FOLDER)
    text = console_text(score_table(report(plan, outcomes(plan), FOLDER)))
    assert text.count("gain over source only, further") == 1
    assert next(line for line in text.splitlines() if "CMix" in line).count("+5.0 ± 1.0") == 1


def with_oracle(oracle: tuple[float, ...], everything: tuple[float, ...]) -> dict[str, Any]:
    """The report of a control at 30, the whole method and an oracle, three seeds."""
    rows = (Row(name="control", variant="control"), Row(name="all"), Row(name="oracle", variant="oracle"))
    plan = plan_study(Table(title="t", rows=rows), "demo", (0, 1, 2), (), FOLDER)
    scored = zip(plan.of_row.values(), ((30.0,) * 3, everything, oracle), strict=True)
    found = [
        Outcome(reading.cell, results(miou, "adapted"))
        for readings, row in scored
        for reading, miou in zip(readings, row, strict=False)
    ]
    return report(plan, found, FOLDER)


def test_what_the_method_wins_of_the_oracles_gain_is_said_once_both_are_told(
    console_text: Callable[[Any], str],
) -> None:
    content = with_oracle((50.0, 51.0, 49.0), (35.0, 35.5, 34.5))
    assert content["share_of_oracle"] == {"row": "all", "oracle": "oracle", "percent": 25.0}
    assert "of what oracle gains over control, all wins 25 %" in console_text(verdict_table(content))
    on_the_seeds_of_both = with_oracle((50.0, 50.2), (35.0, 35.5, 34.5))
    assert on_the_seeds_of_both["share_of_oracle"]["percent"] == pytest.approx(100 * 10.5 / 40.2, abs=1e-4)
    for oracle, everything in (
        ((50.0, 51.0, 49.0), (35.0, 25.0, 31.0)),
        ((50.0, 31.0, 29.0), (35.0, 35.5, 34.5)),
        ((50.0, 51.0, 49.0), (25.0, 25.5, 24.5)),
        ((50.0,), (35.0, 35.5, 34.5)),
        ((), (35.0, 35.5, 34.5)),
    ):
        content = with_oracle(oracle, everything)
        assert content["share_of_oracle"] is None
        assert "wins" not in console_text(verdict_table(content))


def test_rows_unlike_the_control_are_named(console_text: Callable[[Any], str]) -> None:
    rows = (Row(name="all"), Row(name="[long]", set=("train.iterations=900",)))
    plan = plan_study(Table(title="t", rows=rows), "demo", (0,), ("train.iterations=7",), FOLDER)
    found = [Outcome(cell, results(30.0, "adapted")) for cell in plan.cells if cell.warmup is not None]
    text = console_text(verdict_table(report(plan, found, FOLDER)))
    assert "unlike the control: [long]; train.iterations = 900, not 7" in text


def test_without_a_control_nothing_is_told_of_one(plan: Plan, console_text: Callable[[Any], str]) -> None:
    content = report(plan, outcomes(plan), FOLDER)
    assert content["control"] is None
    assert [row["gain_over_control"] for row in content["rows"]] == [None] * 3
    assert verdict_table(content) is None
    assert "further" not in console_text(score_table(content))


def test_a_report_of_an_earlier_version_is_printed_and_drawn(
    controlled: Plan, console_text: Callable[[Any], str], tmp_path: Path
) -> None:
    content = report(controlled, outcomes(controlled), FOLDER)
    for key in ("control", "unlike_control", "share_of_oracle"):
        content.pop(key)
    for row in content["rows"]:
        row.pop("gain_over_control")
    assert "+5.7 ± 0.6" in console_text(score_table(content))
    assert verdict_table(content) is None
    study_chart(tmp_path / "a.png", content)
    assert (tmp_path / "a.png").exists()
    assert "gain over source only, further" not in study(content)


def test_the_pages_table_has_the_gain_over_the_control_and_the_verdict(controlled: Plan) -> None:
    (line,) = [one for one in study(report(controlled, outcomes(controlled), FOLDER)).splitlines() if "| CMix" in one]
    assert "| +5.0 ± 1.0 | better |" in line


def test_a_report_tells_where_it_comes_from_and_no_folders_of_the_data(plan: Plan) -> None:
    content = report(plan, outcomes(plan), FOLDER)
    assert {"command", "versions", "date", "device", "data", "seeds", "base"} <= set(content)
    assert content["settings"] == ["method.tau=0.9"]


def test_runs_of_another_torch_are_told_apart(plan: Plan, console_text: Callable[[Any], str]) -> None:
    first, *others = outcomes(plan)
    assert first.results is not None
    newer = Outcome(first.cell, {**first.results, "versions": {"torch": "3"}})
    content = report(plan, [*others, newer], FOLDER)
    assert content["differs"] == ["versions"]
    assert "not the same in all runs: versions" in console_text(score_table(content))
    assert report(plan, [first, *others], FOLDER)["differs"] == []
    half, whole = (
        Outcome(one.cell, {**(one.results or {}), "precision": name})
        for one, name in ((first, "bfloat16"), (others[0], "float32"))
    )
    assert report(plan, [half, whole], FOLDER)["differs"] == ["precision"]
    assert report(plan, [half, *others], FOLDER)["differs"] == []


def test_the_papers_subsets_stand_beside_ours(console_text: Callable[[Any], str]) -> None:
    row = Row(name="all", paper=57.8, paper_iou={"road": 93.0}, paper_subsets={"two": 64.6})
    plan = plan_study(Table(title="t", rows=(row,)), "demo", (0,), (), FOLDER)
    only = [Outcome(plan.of_row["all"][0].cell, results(40.0, "adapted"))]
    text = console_text(class_tables(report(plan, only, FOLDER), 200)[0])
    assert next(line for line in text.splitlines() if "mIoU, two" in line).count("64.6") == 1


def test_an_unfinished_study_reports_what_there_is(plan: Plan) -> None:
    content = report(plan, outcomes(plan)[:3], FOLDER)
    assert [len(row["cells"]) for row in content["rows"]] == [2, 1, 0]
    assert content["rows"][2]["last"] is None
    assert report(plan, [], FOLDER)["rows"][0]["last"] is None


def test_failed_cells_are_named_and_left_out_of_the_mean(plan: Plan, console_text: Callable[[Any], str]) -> None:
    content = report(plan, outcomes(plan, failing="CMix"), FOLDER)
    assert content["rows"][1]["last"]["miou"] == {"n": 1, "mean": 36.0, "std": None}
    assert content["rows"][1]["gain"]["mean"] == 6.0
    assert failures(content) == ["CMix, seed 1: the loss was not finite"]
    assert "36.0 (1 failed)" in console_text(score_table(content))


def test_the_table_shows_every_number_beside_the_papers(plan: Plan, console_text: Callable[[Any], str]) -> None:
    text = console_text(score_table(report(plan, outcomes(plan), FOLDER)))
    for part in ("32.0 ± 2.8", "+5.5 ± 0.7", "38.5 ± 2.1", "52.1", "paper (A → B)", "seeds 0, 1", "chosen on the"):
        assert part in text


def test_without_a_number_of_the_papers_there_is_no_column_for_it(console_text: Callable[[Any], str]) -> None:
    plan = plan_study(Table(title="t", rows=(ROWS[2],)), "demo", (0,), (), FOLDER)
    only = [Outcome(plan.of_row["all"][0].cell, results(40.0, "adapted"))]
    assert "paper (" not in console_text(score_table(report(plan, only, FOLDER)))


def test_classes_come_in_tables_that_fit_with_the_papers_own(plan: Plan, console_text: Callable[[Any], str]) -> None:
    content = report(plan, outcomes(plan), FOLDER)
    wide, narrow = class_tables(content, 200), class_tables(content, 50)
    assert (len(wide), len(narrow)) == (1, 2)
    text = console_text(wide[0])
    for part in ("42.0 ± 2.8", "60.0", "51.5 ± 4.9", "mIoU, two classes"):
        assert part in text
    assert next(row for row in text.splitlines() if "train" in row).count("–") == 4


def test_a_name_that_looks_like_mathematics_is_drawn_as_it_is(tmp_path: Path) -> None:
    plan = plan_study(Table(title="$\\foo$", rows=(Row(name="cost $\\foo$ |x"),)), "demo", (0,), (), FOLDER)
    readings = next(iter(plan.of_row.values()))
    only = [Outcome(readings[0].cell, results(40.0, "adapted"))]
    study_chart(tmp_path / "a.png", report(plan, only, FOLDER))
    assert (tmp_path / "a.png").exists()


def test_long_names_are_drawn_in_lines() -> None:
    assert wrapped("a b $c", 3) == "a b\n\\$c"


def test_gains_over_the_control_are_drawn_on_an_axis_of_their_own(plan: Plan, controlled: Plan, tmp_path: Path) -> None:
    for name, one in (("without.png", plan), ("with.png", controlled)):
        study_chart(tmp_path / name, report(one, outcomes(one), FOLDER))
    with Image.open(tmp_path / "without.png") as without, Image.open(tmp_path / "with.png") as picture:
        assert picture.width == without.width + 600


def test_the_picture_shows_the_numbers(plan: Plan, tmp_path: Path) -> None:
    study_chart(tmp_path / "a.png", report(plan, outcomes(plan), FOLDER))
    study_chart(tmp_path / "b.png", report(plan, outcomes(plan, failing="CMix"), FOLDER))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 1000
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
