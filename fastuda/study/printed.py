"""A study's report on the console."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from fastuda.study.report import Report
from fastuda.study.spread import plus_minus
from fastuda.study.verdict import MOST_SEEDS


def score_table(report: Report) -> Table:
    """A row a line: mIoU of the last and the best models as mean ± standard deviation, gains, the paper's number."""
    seeds, first = ", ".join(map(str, report["seeds"])), report["rows"][0]["name"]
    has_paper = any(row["paper"] is not None for row in report["rows"])
    table = Table(title=f"{escape(report['title'])}\nmIoU on {escape(report['base'])}, percent, seeds {seeds}")
    table.add_column("row")
    over = [f"gain over {report['control']}"] if _has_control(report) and report["control"] != first else []
    for head in ("last", f"gain over {first}", *over, "best*", *([f"paper ({report['pair']})"] if has_paper else [])):
        table.add_column(escape(head), justify="right")
    for row in report["rows"]:
        table.add_row(
            escape(row["name"]), *_scores(row, first, bool(over)), *([_paper(row["paper"])] if has_paper else [])
        )
    differs = f"\nnot the same in all runs: {', '.join(report['differs'])}" if report["differs"] else ""
    differs += "".join(f"\nleft out: {escape(row)}; {escape(why)}" for row, why in report.get("left_out", {}).items())
    table.caption = (
        "mean ± standard deviation over seeds; the gain is taken seed by seed\n"
        "* chosen on the evaluation set, as the paper does; `last` is the honest one" + differs
    )
    return table


def verdict_table(report: Report) -> Table | None:
    """A row a line: its gains over the control, their mean's 95 % interval and what that tells; None without any."""
    rows = [row for row in report["rows"] if (row.get("gain_over_control") or {}).get("by_seed")]
    if not rows:
        return None
    undecided = any(row["gain_over_control"]["verdict"] == "nothing can be told yet" for row in rows)
    table = Table(title=f"Gain over {escape(report['control'])}, percent")
    for head in ("row", "seed by seed", "mean", "95 % interval", "verdict", *(["seeds to tell"] if undecided else [])):
        table.add_column(head)
    for row in rows:
        gain = row["gain_over_control"]
        interval = "–" if gain["interval"] is None else "{:+.1f} to {:+.1f}".format(*gain["interval"])
        by_seed = [gain["by_seed"].get(str(seed)) for seed in report["seeds"]]
        seeds = ", ".join("–" if one is None else f"{one:+.1f}" for one in by_seed)
        needed = [_seeds_to_tell(gain)] if undecided else []
        table.add_row(escape(row["name"]), seeds, f"{gain['mean']:+.1f}", interval, gain["verdict"], *needed)
    lines = [
        "paired by seed, Student's t; of many rows some look better or worse by chance",
        *(["seeds to tell: how many in all would, if mean and spread stay as they are"] if undecided else []),
        *(f"unlike the control: {row}; {why}" for row, why in report.get("unlike_control", {}).items()),
    ]
    if share := report.get("share_of_oracle"):
        of, won = f"of what {share['oracle']} gains over {report['control']}", f"{share['percent']:.0f} %"
        lines.append(f"{of}, {share['row']} wins {won}")
    table.caption = escape("\n".join(lines))
    return table


def _seeds_to_tell(gain: dict[str, Any]) -> str:
    if gain["verdict"] != "nothing can be told yet":
        return ""
    return f"more than {MOST_SEEDS}" if gain["seeds_needed"] is None else str(gain["seeds_needed"])


def class_tables(report: Report, width: int) -> list[Table]:
    """A class a line: IoU of the last models by row, and the paper's own where it prints them; in parts that fit."""
    rows = [row for row in report["rows"] if row["last"] is not None]
    a_table = max(1, (width - _CLASS_COLUMN) // _ROW_COLUMN)
    return [_class_table(rows[start : start + a_table]) for start in range(0, len(rows), a_table)]


_CLASS_COLUMN, _ROW_COLUMN = 18, 15


def pseudo_label_tables(report: Report, width: int) -> list[Table]:
    """A class a line: precision and recall of the last pseudo-labels above τ by row; in parts that fit, maybe none."""
    rows = [row for row in report["rows"] if row.get("pseudo_labels") is not None]
    a_table = max(1, (width - _CLASS_COLUMN) // _ROW_COLUMN)
    return [_pseudo_label_table(rows[start : start + a_table]) for start in range(0, len(rows), a_table)]


def _pseudo_label_table(rows: list[dict[str, Any]]) -> Table:
    found = [row["pseudo_labels"] for row in rows]
    table = Table(title="Pseudo-labels above τ at the last evaluation: precision / recall, percent")
    table.add_column("class", no_wrap=True)
    for row in rows:
        table.add_column(escape(row["name"]), justify="right", max_width=_ROW_COLUMN)
    for name in found[0]["classes"]:
        own = [one["classes"][name] for one in found]
        table.add_row(
            escape(name), *(f"{_mean(a['precision_above_tau'])} / {_mean(a['recall_above_tau'])}" for a in own)
        )
    table.add_section()
    table.add_row("all, precision", *(_mean(one["precision_above_tau"]) for one in found))
    table.add_row("pixels above τ", *(_mean(one["share_kept"]) for one in found))
    table.caption = "on the evaluation labels, which are used to look alone; recall: of all pixels of the class"
    return table


def _mean(value: dict[str, Any]) -> str:
    return "–" if value["mean"] is None else f"{value['mean']:.0f}"


def _class_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="IoU by class, percent")
    table.add_column("class", no_wrap=True)
    for row in rows:
        table.add_column(escape(row["name"]), justify="right", max_width=_ROW_COLUMN)
        if row["paper_iou"]:
            table.add_column("paper", justify="right")
    for name in rows[0]["last"]["iou"]:
        _add_line(table, name, rows, "iou", name)
    for subset in rows[0]["last"]["subsets"]:
        _add_line(table, f"mIoU, {subset} classes", rows, "subsets", subset)
    return table


def _add_line(table: Table, title: str, rows: list[dict[str, Any]], kind: str, name: str) -> None:
    cells = []
    for row in rows:
        cells.append(plus_minus(row["last"][kind][name]))
        if row["paper_iou"]:
            cells.append(_paper(row[f"paper_{kind}"].get(name)))
    table.add_row(escape(title), *cells)


def _has_control(report: Report) -> bool:
    """Reports of earlier versions have none."""
    return any(row.get("gain_over_control") is not None for row in report["rows"])


def _scores(row: dict[str, Any], first: str, has_control: bool) -> tuple[str, ...]:
    failed = f"{len(row['failures'])} failed" if row["failures"] else ""
    if row["last"] is None:
        return (failed or "–", *([""] * (2 + has_control)))
    last = plus_minus(row["last"]["miou"]) + (f" ({failed})" if failed else "")
    gain = "" if row["name"] == first else plus_minus(row["gain"], signed=True)
    over = row.get("gain_over_control")
    gain_over = [plus_minus(over, signed=True) if over is not None else ""] if has_control else []
    return last, gain, *gain_over, plus_minus(row["best"]["miou"])


def _paper(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
