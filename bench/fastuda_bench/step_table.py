"""The ladder's rows as a table and as a sentence; what failed or disagrees is neither fastest nor a gain."""

from __future__ import annotations

from rich import box
from rich.table import Table

from fastuda_bench.agreement import BASELINE
from fastuda_bench.results import NOT_COMPARED, Row, doubt_of, sound

CAREFUL = "amp-nhwc"
"""The rung of what a careful user would type."""


def table_of(rows: list[Row]) -> Table:
    """The rows as a table: time, gain over the rung below and over the baseline, share of the device's rate."""
    first = rows[0]
    title = (
        f"one iteration of {first['recipe']}, batch {first['batch_size']}, on {first['gpu'] or first['cpu']}, "
        f"torch {first['versions']['torch']}"
    )
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    counts_launches = any(row.get("launches") is not None for row in rows)
    columns = ["rung", "ms", "spread", "× below", "× eager", "TFLOP/s", "MFU", "peak MB"]
    for column in [*columns, *(["launches"] if counts_launches else [])]:
        table.add_column(column, justify="left" if column == "rung" else "right", no_wrap=True)
    for row, below, plain in with_baselines(rows):
        if "ms" not in row:
            table.add_row(row["rung"], "failed", style="red")
            continue
        cells = [
            row["rung"],
            f"{row['ms']['median']:.1f}",
            f"{row['ms']['spread']:.1f}" if row["ms"]["repeats"] > 1 else "–",
            _gain(row, below),
            _gain(row, plain),
            f"{row['flops_per_second'] / 1e12:.3g}",
            f"{100 * row['mfu']:.0f} %",
            "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}",
        ]
        launches = [str(row["launches"])] if counts_launches else []
        table.add_row(*cells, *launches, style="red" if doubt_of(row) else None)
    for row in rows:
        doubt = doubt_of(row)
        if doubt is not None:
            table.caption = f"{table.caption or ''}\n{row['rung']}: {doubt}".strip()
            table.caption_style = "red"
    return table


def with_baselines(rows: list[Row]) -> list[tuple[Row, Row | None, Row | None]]:
    """Each row with the row above it in the table and the plainest one's, None where these do not count."""
    counting = sound(rows)
    plain = next((row for row in counting if row["rung"] == BASELINE), None)
    return [
        (row, above if row in counting and above in counting else None, plain if row in counting else None)
        for row, above in zip(rows, [rows[0], *rows[:-1]], strict=True)
    ]


def fastest(rows: list[Row]) -> Row | None:
    """The row with the shortest iteration of those that count; None where none does."""
    return min(sound(rows), key=lambda row: float(row["ms"]["median"]), default=None)


def verdict_of(rows: list[Row]) -> str:
    """The fastest rung against the two baselines, and what makes the figures doubtful, if anything does."""
    best, counting = fastest(rows), sound(rows)
    if best is None:
        return "no rung counts: each failed or computes something else"
    against = [row for row in counting if row["rung"] in (BASELINE, CAREFUL) and row is not best]
    gains = " and ".join(f"{speedup(best, row):.2f} × {row['rung']}" for row in against)
    rate = f"{best['images_per_second']:.1f} images a second"
    said = f"fastest: {best['rung']}, {best['ms']['median']:.1f} ms, {rate}" + (f"; {gains}" if gains else "")
    if any(row["mfu"] > 1.05 or row["ms"]["spread"] > 0.3 * row["ms"]["median"] for row in counting):
        said += "\nthese figures are noisy (above the device's own rate, or far apart): was the machine busy?"
    unknown = [row["rung"] for row in counting if row.get("disagreement") == NOT_COMPARED]
    if unknown:
        said += f"\nnot compared with {BASELINE}, which is missing: {', '.join(unknown)}"
    return said


def speedup(row: Row, other: Row) -> float:
    """How many times as fast as another row."""
    return float(other["ms"]["median"]) / float(row["ms"]["median"])


def _gain(row: Row, other: Row | None) -> str:
    return "–" if other is None else f"{speedup(row, other):.2f}"
