"""`fastuda bench ranks`: every way once, in one job."""

from __future__ import annotations

import json
from pathlib import Path

from commands import fastuda, settings


def test_every_way_is_timed_in_one_run(tmp_path: Path) -> None:
    code, output = fastuda(
        *("bench", "ranks", "demo", "--device", "cpu", "--repeats", "1", "--iterations", "1"),
        *("--json", tmp_path / "ranks.json", *settings()),
    )
    assert code == 0, output
    rows = json.loads((tmp_path / "ranks.json").read_text())
    assert [row["way"] for row in rows] == [
        *("one process, the whole batch", "one process, a rank's share", "all ranks, nothing exchanged", "all ranks"),
        *("all ranks, overlap", "all ranks, bf16 gradients", "all ranks, synchronised BatchNorm"),
    ]
    assert [row["ranks"] for row in rows] == [1, 1, 2, 2, 2, 2, 2]
    assert [row["images"] for row in rows] == [4, 2, 4, 4, 4, 4, 4]
    plain = rows[3]["gradient_bytes"]
    assert [row["gradient_bytes"] for row in rows] == [0, 0, 0, plain, 2 * plain, plain // 2, plain]
    assert plain > 0
    assert all(row["ms"]["repeats"] == 1 and row["ms"]["median"] > 0 for row in rows)
    assert rows[0]["speed"] == 1
    assert "images a second" in output
