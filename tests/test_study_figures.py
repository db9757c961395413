"""Tables of studies on the project's pages."""

from __future__ import annotations

from typing import Any

import pytest

from fastuda_bench.study_figures import study, study_in_a_line

ORIGIN = {"device": "CPU", "versions": {"torch": "2.13.0"}, "date": "2026-11-30T00:00:00", "pair": "A → B"}


def spread(mean: float) -> dict[str, Any]:
    return {"n": 2, "mean": mean, "std": 0.5}


def row(
    name: str, miou: float | None, *, over: dict[str, Any] | None = None, paper: float | None = None
) -> dict[str, Any]:
    scores = None if miou is None else {"miou": spread(miou)}
    cells = [] if miou is None else [{"seconds": 60.0}]
    return {
        "name": name,
        "last": scores,
        "best": scores,
        "paper": paper,
        "cells": cells,
        "gain": spread(1.0),
        "gain_over_control": over,
    }


def content(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    common = {"base": "dir/own.toml", "seeds": [0, 1], "settings": [], "control": "further", "share_of_oracle": None}
    return {**ORIGIN, **common, "rows": list(rows), **more}


BETTER = {**spread(4.0), "verdict": "better"}


def test_a_control_has_columns_of_its_own() -> None:
    head, _, first, control, whole, *_ = study(
        content(row("bare", 30.0), row("further", 31.0), row("all", 35.0, over=BETTER, paper=58.8))
    ).splitlines()
    assert [one.strip() for one in head.strip("|").split("|")] == [
        *("row", "last", "gain over bare", "gain over further", "verdict", "best", "paper (A → B)")
    ]
    assert all(line.count("|") == head.count("|") for line in (first, control, whole))
    assert "better" in whole


def test_a_control_in_the_first_row_has_one_column_of_gains() -> None:
    found = study(content(row("further", 31.0), row("all", 35.0, over=BETTER), row("edge", None))).splitlines()
    assert found[0].count("gain over") == 1
    assert all(line.count("|") == found[0].count("|") for line in found[2:5])
    assert "failed" in found[4]


def test_numbers_of_a_paper_have_a_column_where_there_are_such() -> None:
    rows = (row("bare", 30.0), row("edge", None))
    assert "paper" not in study(content(*rows, control=None))
    head, _, bare, edge, *_ = study(content(row("all", 35.0, paper=58.8), *rows[1:], control=None)).splitlines()
    assert head.endswith("| paper (A → B) |")
    assert bare.endswith("| 58.8 |")
    assert edge.endswith("| – |")


def test_time_is_that_of_all_runs_where_the_study_says_it() -> None:
    rows = (row("further", 31.0), row("few", 35.0, over=BETTER))
    assert "5 minutes of training." in study(content(*rows, seconds=300.0))
    assert "2 minutes of training." in study(content(*rows))


def test_a_study_in_a_line_goes_from_the_lowest_row_to_the_highest() -> None:
    rows = (row("all", 35.0), row("bare", 30.0), row("edge", None))
    assert study_in_a_line(content(*rows)) == "Mean mIoU over seeds 0, 1: bare 30.0, all 35.0.\n"


def test_the_oracles_share_is_said_once_it_can_be_told() -> None:
    rows = (row("further", 31.0), row("all", 35.0, over=BETTER))
    share = {"row": "all", "oracle": "oracle", "percent": 39.6}
    assert study(content(*rows, share_of_oracle=share)).endswith(
        "Of what *oracle* gains over the control, *all* wins 40 %.\n"
    )
    assert "Of what" not in study(content(*rows))


@pytest.mark.parametrize(
    ("setting", "said"),
    [("train.iterations=9", True), ("runtime.loader_threads=1", False),
     ("data.cache=/x", False), ("model.weights=/x/y.pth", False)],
)  # fmt: skip
def test_settings_that_change_what_is_computed_are_said(setting: str, said: bool) -> None:
    assert (f"`{setting}`" in study(content(row("bare", 30.0), settings=[setting], control=None))) == said


def test_a_lower_precision_is_said() -> None:
    assert "CPU, bfloat16, torch" in study(content(row("bare", 30.0), control=None, precision="bfloat16"))
    assert "CPU, torch" in study(content(row("bare", 30.0), control=None, precision="float32"))
    assert "CPU, torch" in study(content(row("bare", 30.0), control=None))
