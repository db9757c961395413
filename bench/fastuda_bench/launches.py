"""Kernel launches and bytes of an iteration on a GPU, rung by rung, estimated on any machine."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.table import Table

from fastuda.errors import FastudaError
from fastuda.recipe import Recipe
from fastuda_bench.ladder import RUNGS, recipe_at
from fastuda_bench.results import Row, stamp

RUNG_NAMES = ("graph", "flat-update", "fused-bn")
"""From the last rung that launches what torch's compiler alone makes of the step; `gemm-aspp` has `graph`'s kernels."""


def launch_rows(recipe: Recipe, name: str, rungs: Sequence[str] = RUNG_NAMES) -> list[Row]:
    """A row a rung: launches by kind and bytes of one adaptation iteration, as `traced_step` counts them.

    Nothing is run. Each rung is traced in a process of its own, which is made to believe in a GPU and where
    Triton's kernels are not interpreted. Raises FastudaError where that fails.
    """
    shared = stamp(["torch", "triton"])
    adds = {rung.name: rung.adds for rung in RUNGS}
    rows = []
    for rung in rungs:
        counted = _in_a_process(recipe, rung)
        row = {"question": "launches", "recipe": name, "batch_size": recipe.train.batch_size}
        rows.append(row | {"rung": rung, "adds": adds[rung]} | counted | shared)
    return rows


def table_of(rows: Sequence[Row]) -> Table:
    """A line a rung."""
    first = rows[0]
    title = f"one iteration of {first['recipe']}, batch {first['batch_size']}: estimated, not measured"
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("rung", no_wrap=True)
    for head in COLUMNS:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(row["rung"], *cells(row))
    return table


COLUMNS = ("launches", "convolutions, products", "fused by the compiler", "fastuda's", "others", "GB")


def cells(row: Row) -> list[str]:
    """A row's figures, a column of `COLUMNS` each."""
    kinds = ("products", "fused", "triton", "others")
    return [f"{row['launches']:,}", *(f"{row[kind]:,}" for kind in kinds), f"{row['bytes'] / 1e9:.1f}"]


def _in_a_process(recipe: Recipe, rung: str) -> Row:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["CUDA_VISIBLE_DEVICES"] = ""
    asked = [sys.executable, "-m", "fastuda_bench.launches", rung]
    done = subprocess.run(asked, input=recipe.model_dump_json(), env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise FastudaError(f"{rung}: the step cannot be traced:\n{done.stderr[-3000:]}")
    counted: Row = json.loads(done.stdout.splitlines()[-1])
    return counted


def _print_counted(rung: str) -> None:
    from fastuda_bench.traced_step import traced_step

    recipe = recipe_at(Recipe.model_validate_json(sys.stdin.read()), next(one for one in RUNGS if one.name == rung))
    found = traced_step(recipe)
    print(json.dumps({"launches": found.launches} | asdict(found)), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    gc.disable()  # graphs of many small objects: looking through them again and again takes long
    _print_counted(sys.argv[1])
