"""Several ranks against one process, and shards against single files, as tables of the project's pages."""

from __future__ import annotations

from typing import Any

from fastuda_bench.markdown import table
from fastuda_bench.ranks import COLUMNS, WAYS, cells
from fastuda_bench.shards import COLUMNS as STORAGES
from fastuda_bench.shards import lines


def several_ranks(rows: list[dict[str, Any]]) -> str:
    """A way a line, and what lies between them."""
    first = rows[0]
    ms = {row["way"]: row["ms"]["median"] for row in rows}
    share, apart, plain = (ms[WAYS[place].name] for place in (1, 2, 3))
    note = (
        f"`{first['recipe']}`, batches of noise; median of {first['ms']['repeats']} windows of {first['iterations']} "
        f"iterations, taken in turn, {_machine(first)}, load average {first['load_average']}, torch "
        f"{first['versions']['torch']}, commit `{first['commit']}`, {first['date']}. A rank's share takes "
        f"{share:.0f} ms alone and {apart:.0f} ms beside the others; the exchange adds {plain - apart:+.0f} ms.\n"
    )
    return table(COLUMNS, [cells(row) for row in rows]) + "\n" + note


def shards_or_files(rows: list[dict[str, Any]]) -> str:
    """A storage a line."""
    first = rows[0]
    size = "×".join(map(str, first["size"]))
    note = (
        f"{first['samples']} pairs of {size} as {first['pack']}, shards of {first['shard_mb']:g} MiB, "
        f"{first['shards_mixed']} mixed; one reading thread, checksums included; median of "
        f"{first['samples_per_second']['repeats']} epochs, taken in turn, {_machine(first)}, commit "
        f"`{first['commit']}`, {first['date']}. The last two rows are simulated: a wait for every request, one to open "
        "a file and one a MiB of it.\n"
    )
    return table(STORAGES, lines(rows)) + "\n" + note


def _machine(row: dict[str, Any]) -> str:
    return row["gpu"] or f"{row['cores']} cores of an {row['cpu']}"
