"""What a study found: every cell's scores, and each row's mean and deviation beside the paper's number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastuda.files.disk import write_json
from fastuda.runs.checkpoint.notes import ADAPTED, SOURCE_ONLY
from fastuda.runs.provenance import provenance
from fastuda.study.plan import Plan, Reading
from fastuda.study.run import Outcome
from fastuda.study.spread import spread, spread_of_records
from fastuda.study.table import ORACLE, Row
from fastuda.study.verdict import verdict
from fastuda.training.run import Results

Report = dict[str, Any]
_THE_SAME = ("data", "device", "precision", "versions")
"""Of a run's results: what all runs of a study should have in common."""


def report(plan: Plan, outcomes: Sequence[Outcome], folder: Path) -> Report:
    """The study as JSON: `rows` in the table's order, each with its `cells`, `last`, `best`, `gain` and `paper`.

    `gain` is over the first row, seed by seed, so that what a seed's warm-up adds to both is not in it;
    `gain_over_control` likewise over the row `control` (None in that row, and without one), with every seed's own gain,
    the mean's 95 % interval and what that tells. `differs` names what was not the same in all runs (`data`, `device`,
    `precision`, `versions`), which makes their scores less alike than they look; `unlike_control` in what rows are not
    the control with another loss. `share_of_oracle` is how much of the oracle's gain over the control the whole method
    wins, once both are `better`. `seconds` is what all runs trained for, the warm-ups that no row shows among them.
    `history` is a cell's mIoU by iteration of the adaptation, from the network that it
    starts from; `pseudo_labels`, where they were looked at, are a cell's likewise, and a row's last evaluation over its
    seeds.
    """
    by_folder = {outcome.cell.folder: outcome for outcome in outcomes}
    found: list[tuple[Row, list[dict[str, Any]], dict[str, str]]] = []
    for row in plan.table.rows:
        cells: list[dict[str, Any]] = []
        failures: dict[str, str] = {}
        for reading in plan.of_row[row.name]:
            outcome = by_folder.get(reading.cell.folder)
            if outcome is not None and outcome.results is not None:
                cells.append(_cell(reading, outcome.results, folder))
            elif outcome is not None:
                failures[str(reading.cell.seed)] = outcome.failure
        found.append((row, cells, failures))
    control = plan.table.control_row
    first, over = found[0][1], next((cells for row, cells, _ in found if row == control), None)
    rows = [
        {**_row(row, plan.base, cells, failures), "gain": spread(list(_gains(cells, first).values())),
         "gain_over_control": None if over is None or row == control else _gain_over_control(cells, over)}
        for row, cells, failures in found
    ]  # fmt: skip
    done = [outcome.results for outcome in outcomes if outcome.results is not None]
    return {
        "title": plan.table.title,
        "pair": plan.table.pair,
        "base": plan.base,
        "settings": [setting for setting in plan.settings if not setting.startswith(("source.root=", "target.root="))],
        "seeds": list(plan.seeds),
        "control": None if control is None else control.name,
        "unlike_control": plan.unlike_control,
        "share_of_oracle": _share_of_oracle(plan.table.rows, rows),
        "rows": rows,
        "seconds": round(sum(sum(results["seconds"].values()) for results in done), 3),
        "left_out": plan.left_out,
        "protocol": next((cell["last"]["protocol"] for row in rows for cell in row["cells"]), None),
        "data": done[0]["data"] if done else {},
        "device": done[0]["device"] if done else None,
        "precision": done[0].get("precision") if done else None,
        **provenance(),
        "differs": [key for key in _THE_SAME if any(_differ(one, done[0], key) for one in done)],
    }


def _differ(one: Results, other: Results, key: str) -> bool:
    """Of the data the splits that both runs read: a row may read one more. A run of before says no `precision`."""
    if key != "data":
        return key in one and key in other and bool(one[key] != other[key])
    return any(one[key][split] != other[key][split] for split in one[key].keys() & other[key].keys())


def write_report(path: Path, content: Report) -> None:
    """Write the study as JSON, whole or not at all."""
    write_json(path, content, indent=1)


def _cell(reading: Reading, results: Results, folder: Path) -> dict[str, Any]:
    """One run's scores of the stage that the row is about, and its pseudo-labels where they were looked at."""
    looked, history = results[reading.stage].get("pseudo_labels"), _history(reading, results)
    return {
        "seed": reading.cell.seed,
        "run": str(reading.cell.folder.relative_to(folder)),
        "last": results[reading.stage]["last"],
        "best": results[reading.stage]["best"],
        "seconds": results["seconds"].get(reading.stage, 0.0),
        "date": results["date"],
        **({"history": history} if history else {}),
        **({"pseudo_labels": looked} if looked else {}),
    }


def _history(reading: Reading, results: Results) -> list[dict[str, Any]]:
    """mIoU by iteration of the adaptation; none of a row that is about the network before it."""
    if reading.stage != ADAPTED:
        return []
    start: Results | None = results.get(SOURCE_ONLY)
    own: list[dict[str, Any]] = results[ADAPTED].get("history", [])
    if start is None or not own or own[0]["iteration"] == 0:
        return own
    return [{"iteration": 0, "miou": start["last"]["miou"]}, *own]


def _gains(cells: list[dict[str, Any]], over: list[dict[str, Any]]) -> dict[int, float]:
    """By seed: how much higher a row's last mIoU is than another's, percent."""
    by_seed = {cell["seed"]: cell["last"]["miou"] for cell in over}
    return {cell["seed"]: cell["last"]["miou"] - by_seed[cell["seed"]] for cell in cells if cell["seed"] in by_seed}


def _gain_over_control(cells: list[dict[str, Any]], control: list[dict[str, Any]]) -> dict[str, Any]:
    gains = _gains(cells, control)
    told = verdict(list(gains.values()))
    by_seed = {str(seed): round(gain, 4) for seed, gain in gains.items()}
    return {**spread(list(gains.values())), "by_seed": by_seed, **(told.to_json() if told is not None else {})}


def _share_of_oracle(table: Sequence[Row], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Of the oracle's mean gain over the control the base recipe's own, percent, on the seeds of both."""
    plain = [(row.variants, found) for row, found in zip(table, rows, strict=True) if not row.set]
    whole, oracle = (next((row for own, row in plain if own == variants), None) for variants in ([], [ORACLE]))
    if whole is None or oracle is None:
        return None
    gains = [row["gain_over_control"] or {} for row in (whole, oracle)]
    if any(gain.get("verdict") != "better" for gain in gains):
        return None
    own, most = (gain["by_seed"] for gain in gains)
    seeds = own.keys() & most.keys()
    if not seeds or sum(most[seed] for seed in seeds) <= 0:
        return None
    share = 100 * sum(own[seed] for seed in seeds) / sum(most[seed] for seed in seeds)
    return {"row": whole["name"], "oracle": oracle["name"], "percent": round(share, 4)}


def _last_pseudo_labels(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Spread over seeds of what the last evaluations say of pseudo-labels, overall and by class; None of none."""
    if not found:
        return None
    overall = {key: spread([one[key] for one in found]) for key in ("precision", "precision_above_tau", "share_kept")}
    first = found[0]["classes"]
    classes = {
        name: {key: spread([one["classes"][name][key] for one in found]) for key in first[name]} for name in first
    }
    return {"tau": found[0]["tau"], **overall, "classes": classes}


def _row(row: Row, base: str, cells: list[dict[str, Any]], failures: dict[str, str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "recipe": row.recipe(base),
        "set": list(row.set),
        "paper": row.paper,
        "paper_iou": row.paper_iou,
        "paper_subsets": row.paper_subsets,
        "last": spread_of_records([cell["last"] for cell in cells]) if cells else None,
        "best": spread_of_records([cell["best"] for cell in cells]) if cells else None,
        "pseudo_labels": _last_pseudo_labels([cell["pseudo_labels"][-1] for cell in cells if "pseudo_labels" in cell]),
        "cells": cells,
        "failures": failures,
    }
