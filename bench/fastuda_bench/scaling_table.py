"""The model of several GPUs as tables: what is exchanged, how efficient it is, what feeds it, and its check."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from fastuda_bench.results import Row
from fastuda_bench.scaling import RANKS, WAYS

Lines = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""The heads of a table's columns, and its lines."""
TITLES = {
    "exchange": "what a rank exchanges in an iteration: model",
    "efficiency": "images a second as a share of as many single GPUs': model",
    "feeding": "what a GPU reads, and how many of them a store feeds: model",
    "all_reduce": "all-reduces between processes of this machine: measured, and as modelled",
}


def part(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows of a part of the results."""
    return [row for row in rows if row["part"] == name]


def exchange_lines(rows: Sequence[Row]) -> Lines:
    """A line a thing that is exchanged."""
    head = ("an iteration", "MB", "collectives", *(f"MB sent of {ranks}" for ranks in RANKS))
    return head, [
        (row["what"], _mb(row["bytes"]), str(row["collectives"]), *(_mb(row["sent"][str(one)]) for one in RANKS))
        for row in rows
    ]


def efficiency_lines(rows: Sequence[Row]) -> Lines:
    """A line a card and way."""
    head = (
        "GPU, links in and between machines",
        "`[distributed]`",
        "ms alone",
        *(f"{ranks} GPUs" for ranks in RANKS),
    )
    lines, before = [], None
    for row in rows:
        links = f"{row['card']}, {row['inside']}, {row['between']}"
        first, before = links != before, links
        alone = f"{row['compute_ms']:.0f}" + (" (measured)" if row["compute"] == "measured" else "") if first else ""
        shares = (f"{100 * row['efficiency'][str(ranks)]:.1f} %" for ranks in RANKS)
        lines.append((links if first else "", WAYS[row["way"]], alone, *shares))
    return head, lines


def feeding_lines(rows: Sequence[Row]) -> Lines:
    """A line a card and pack."""
    stores = list(rows[0]["most_ranks"])
    head = ("GPU, `data.pack`", "images/s", "MB/s", "cores", *stores)
    return head, [
        (
            f"{row['card']}, {row['pack']}",
            f"{row['images_per_second']:.0f}",
            f"{row['bytes_per_second'] / 1e6:.0f}",
            f"{row['decoding_cores']:.2f}",
            *(_most(row["most_ranks"][store]) for store in stores),
        )
        for row in rows
    ]


def all_reduce_lines(rows: Sequence[Row]) -> Lines:
    """A line a number of ranks and size."""
    head = ("ranks, kB", "fastest ms", "median", "spread", "the line's ms", "wrong by", "")
    return head, [
        (
            f"{row['ranks']}, {row['bytes'] / 1e3:,.0f}",
            f"{row['fastest_ms']:.2f}",
            f"{row['ms']['median']:.2f}",
            f"{row['ms']['spread']:.2f}",
            f"{row['model_ms']:.2f}",
            f"{100 * row['model_error']:+.0f} %",
            "fitted" if row["fitted"] else "**predicted**",
        )
        for row in rows
    ]


LINES = {
    "exchange": exchange_lines,
    "efficiency": efficiency_lines,
    "feeding": feeding_lines,
    "all_reduce": all_reduce_lines,
}


def tables_of(rows: Sequence[Row]) -> list[Table]:
    """A table a part that there is."""
    tables = []
    for name, title in TITLES.items():
        of_part = part(rows, name)
        if not of_part:
            continue
        head, lines = LINES[name](of_part)
        table = Table(title=title, box=box.SIMPLE)
        for place, column in enumerate(head):
            table.add_column(_plain(column), justify="left" if place == 0 else "right")
        for line in lines:
            table.add_row(*map(_plain, line))
        tables.append(table)
    return tables


def _plain(text: str) -> str:
    return text.replace("`", "").replace("**", "").replace("[", r"\[")


def _mb(num_bytes: float) -> str:
    megabytes = num_bytes / 1e6
    return f"{megabytes:.0f}" if megabytes >= 10 else f"{megabytes:.1f}"


def _most(ranks: int | None) -> str:
    return "all" if ranks is None else str(ranks)
