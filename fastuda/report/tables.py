"""Results as tables on the console."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from fastuda.data.datasets import Datasets
from fastuda.metrics import Scores
from fastuda.metrics.boundary import BoundaryScores
from fastuda.metrics.confidence import ConfidenceScores
from fastuda.metrics.iou import plain


def score_table(results: dict[str, Any]) -> Table:
    """Per-class IoU of a run's stages beside one another, with the mean and the gain; from results.json."""
    stages = [stage for stage in ("source_only", "adapted") if stage in results]
    table = Table(title=f"IoU on the target's evaluation split, percent ({results[stages[-1]]['protocol']} protocol)")
    table.add_column("class")
    for stage in stages:
        table.add_column(stage.replace("_", " "), justify="right")
    if len(stages) == 2:
        table.add_column("gain", justify="right")
    absent = results[stages[-1]]["last"].get("absent", [])
    for name in results[stages[0]]["iou"]:
        title = f"{name} (absent in val)" if name in absent else name
        _add_row(table, title, [results[stage]["iou"][name] for stage in stages])
    table.add_section()
    _add_row(table, "mIoU (last)", [results[stage]["last"]["miou"] for stage in stages])
    for subset in results[stages[-1]]["last"]["subsets"]:
        _add_row(table, f"mIoU, {subset} classes", [results[stage]["last"]["subsets"][subset] for stage in stages])
    _add_row(table, "mIoU (best*)", [results[stage]["best"]["miou"] for stage in stages])
    table.caption = "* chosen on the evaluation set, as the paper does; `last` is the honest one" + _absence(absent)
    return table


def _add_row(table: Table, name: str, values: list[float | None]) -> None:
    cells = [_cell(value) for value in values]
    if len(values) == 2:
        before, after = values
        cells.append("" if before is None or after is None else f"{after - before:+.2f}")
    table.add_row(escape(name), *cells)


def protocol_table(scores: dict[str, Scores], precision: str = "float32") -> Table:
    """Per-class IoU, means and accuracies of one model, a column a protocol (protocol row 23); how it was computed."""
    table = Table(title="IoU, percent")
    table.add_column("class")
    for protocol in scores:
        table.add_column(protocol, justify="right")
    columns = [one.to_json() for one in scores.values()]
    for name in columns[0]["iou"]:
        title = f"{name} (absent in val)" if name in columns[0]["absent"] else name
        table.add_row(escape(title), *(_cell(column["iou"][name]) for column in columns))
    table.add_section()
    for key, title in (("miou", "mIoU"), ("pixel_accuracy", "pixel accuracy"), ("mean_accuracy", "mean accuracy")):
        table.add_row(title, *(_cell(column[key]) for column in columns))
    for subset in columns[0]["subsets"]:
        title = f"mIoU, {escape(subset)} classes"
        table.add_row(title, *(_cell(column["subsets"][subset]) for column in columns))
    table.caption = "full: at the label's own size; released: label resized to the network's input, as the authors did"
    table.caption += "" if precision == "float32" else f"; computed in {precision}"
    table.caption += _absence(columns[0]["absent"])
    return table


def _absence(absent: list[str]) -> str:
    if not absent:
        return ""
    return "; absent in val: no label there has the class, and what the model calls so counts as 0 in mIoU"


def boundary_table(boundary: BoundaryScores) -> Table:
    """mIoU of the pixels near the label's boundaries, and the boundary F-score, a radius in pixels a column."""
    table = Table(title="Near boundaries, percent")
    table.add_column("")
    for radius in boundary.trimap:
        table.add_column(f"{radius} px", justify="right")
    table.add_row("mIoU within (trimap)", *(_cell(one.to_json()["miou"]) for one in boundary.trimap.values()))
    table.add_row("boundary F-score", *(_cell(one.to_json()["mean"]) for one in boundary.f_score.values()))
    return table


def confidence_table(confidence: ConfidenceScores, tau: float, radius: int) -> Table:
    """Figure 2's curve as numbers, τ of the recipe among them; calibration below."""
    near = f"within {radius} px of a boundary"
    table = Table(title="What a confidence threshold keeps, percent (paper figure 2)")
    heads = ("τ", "pixels kept", "wrong pixels kept", "wrong among the kept", f"wrong pixels kept, {near}")
    for head in heads:
        table.add_column(head, justify="right")
    for threshold in sorted({0.0, 0.35, 0.55, 0.75, 0.95, 0.97, tau}):
        kept, edge = confidence.overall.at(threshold), confidence.boundary.at(threshold)
        values = (kept.pixels, kept.errors, kept.error_rate, edge.errors)
        table.add_row(f"{threshold:g}", *(_cell(plain(value)) for value in values))
    table.caption = (
        f"{_cell(plain(confidence.boundary_pixels))} % of the pixels and {_cell(plain(confidence.boundary_errors))} % "
        f"of the wrong ones lie {near}; expected calibration error {_cell(plain(confidence.ece))} %"
    )
    return table


def packed_table(data: Datasets) -> Table:
    """Where the packed splits lie, and how many samples they hold."""
    table = Table("split", "samples", "not used", "size", "folder")
    for name, packed in data.splits().items():
        size = f"{packed.size[0]}×{packed.size[1]}"
        table.add_row(
            name.replace("_", " "), str(len(packed)), str(packed.left_out) or "–", size, escape(str(packed.folder))
        )
    return table


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
