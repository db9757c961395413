"""A study's report on the console."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from fastuda.spread import plus_minus
from fastuda.study.report import Report


def score_table(report: Report) -> Table:
    """A row a line: mIoU of the last and the best models as mean ± standard deviation, gain, the paper's number."""
    seeds = ", ".join(map(str, report["seeds"]))
    table = Table(title=f"{escape(report['title'])}\nmIoU on {escape(report['base'])}, percent, seeds {seeds}")
    table.add_column("row")
    first = report["rows"][0]["name"]
    for head in ("last", f"gain over {first}", "best*", f"paper ({report['pair']})"):
        table.add_column(escape(head), justify="right")
    for row in report["rows"]:
        paper = "–" if row["paper"] is None else f"{row['paper']:.1f}"
        if row["last"] is None:
            table.add_row(escape(row["name"]), "failed" if row["failures"] else "–", "", "", paper)
            continue
        gain = "" if row["name"] == first else plus_minus(row["gain"], signed=True)
        failed = f" ({len(row['failures'])} failed)" if row["failures"] else ""
        last, best = plus_minus(row["last"]["miou"]) + failed, plus_minus(row["best"]["miou"])
        table.add_row(escape(row["name"]), last, gain, best, paper)
    table.caption = (
        "mean ± standard deviation over seeds; the gain is taken seed by seed\n"
        "* chosen on the evaluation set, as the paper does; `last` is the honest one"
    )
    return table


def class_table(report: Report) -> Table:
    """A class a line: IoU of the last models by row, and the paper's own where it prints them."""
    rows = [row for row in report["rows"] if row["last"] is not None]
    table = Table(title="IoU by class, percent")
    table.add_column("class")
    for row in rows:
        table.add_column(escape(row["name"]), justify="right")
        if row["paper_iou"]:
            table.add_column("paper", justify="right")
    for name in rows[0]["last"]["iou"] if rows else ():
        cells = []
        for row in rows:
            cells.append(plus_minus(row["last"]["iou"][name]))
            if row["paper_iou"]:
                cells.append(f"{row['paper_iou'][name]:.1f}" if name in row["paper_iou"] else "–")
        table.add_row(escape(name), *cells)
    for subset in rows[0]["last"]["subsets"] if rows else ():
        cells = []
        for row in rows:
            cells += [plus_minus(row["last"]["subsets"][subset]), *([""] if row["paper_iou"] else [])]
        table.add_row(f"mIoU, {escape(subset)} classes", *cells)
    return table
