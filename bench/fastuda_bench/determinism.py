"""What does `runtime.deterministic` cost? The same step without and with it, in turn, each in its own process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from fastuda.errors import FastudaError, UsageError
from fastuda.recipe import Recipe
from fastuda_bench.card.process import run
from fastuda_bench.results import Row, gpu, read_json, stamp, summary

FIELD = "runtime.deterministic"
_LIMIT = 600.0
"""Seconds of one process; a GPU's compiles first."""
_SAID_LINES = 4


def refuse_switch(settings: Sequence[str]) -> None:
    """Raise UsageError for `--set runtime.deterministic=…`, which is measured both ways."""
    for setting in settings:
        if setting.partition("=")[0].strip() == FIELD:
            raise UsageError(f"--set {setting}: both are measured here")


def determinism_row(
    recipe: Recipe,
    name: str,
    asked: str,
    settings: Sequence[str],
    device: torch.device,
    folder: Path,
    *,
    repeats: int,
    iterations: int,
    report: Callable[[str], None] = lambda line: None,
) -> Row:
    """One row: milliseconds an iteration without and with determinism, and their ratio, repeat by repeat.

    A repeat is a process each way, one after the other, the first of them in turn; `asked` is the recipe's name or
    file, `folder` takes their logs. Raises FastudaError, with the end of its log, when one fails or hangs.
    """
    found: dict[bool, list[Row]] = {False: [], True: []}
    for repeat in range(repeats):
        for deterministic in (False, True) if repeat % 2 == 0 else (True, False):
            switch = f"{FIELD}={str(deterministic).lower()}"
            one = _window(asked, [*settings, switch], device, iterations, folder / f"{repeat}-{deterministic}")
            report(f"{switch}: {one['ms']:.1f} ms an iteration")
            found[deterministic].append(one)
    default, deterministic_ones = ([one["ms"] for one in found[way]] for way in (False, True))
    return {
        "question": "determinism",
        "recipe": name,
        "batch_size": recipe.train.batch_size,
        "views": [recipe.views.source_size, recipe.views.target_size, recipe.views.crop_size],
        "data": "noise",
        "iterations": iterations,
        "way": [found[way][0]["way"] for way in (False, True)],
        "precision": found[False][0]["precision"],
        "ms_default": summary(default),
        "ms_deterministic": summary(deterministic_ones),
        "ratio": summary([with_ / without for with_, without in zip(deterministic_ones, default, strict=True)]),
        "same_bits": [len({one["digest"] for one in found[way]}) == 1 for way in (False, True)],
        **gpu(device),
        **stamp(["torch", "triton", "numpy"]),
    }


def table_of(row: Row) -> Table:
    """The row as a table."""
    where = row["gpu"] or f"{row['cores']} cores of {row['cpu']}"
    title = f"{FIELD}: one iteration of {row['recipe']}, batch {row['batch_size']}, on {where}"
    table = Table(title=title, box=box.SIMPLE)
    for column in (FIELD, "ms/it", "spread", "× default", "spread", "same bits every time", "way"):
        table.add_column(column, justify="right")
    for i, (said, name) in enumerate((("false", "ms_default"), ("true", "ms_deterministic"))):
        ratio = ("1", "") if i == 0 else (f"{row['ratio']['median']:.3f}", f"{row['ratio']['spread']:.3f}")
        ms, bits = row[name], bits_of(row, i)
        table.add_row(said, f"{ms['median']:.1f}", f"{ms['spread']:.1f}", *ratio, bits, row["way"][i])
    return table


def bits_of(row: Row, way: int) -> str:
    """Whether every process of a way (0 default, 1 deterministic) left the same weights; a dash for one alone."""
    if row["ms_default"]["repeats"] < 2:
        return "–"
    return "yes" if row["same_bits"][way] else "no"


def _window(asked: str, settings: Sequence[str], device: torch.device, iterations: int, place: Path) -> Row:
    """What one process measured."""
    file, log = place.with_suffix(".json"), place.with_suffix(".log")
    order = {"recipe": asked, "settings": list(settings), "device": device.type, "iterations": iterations}
    command = [sys.executable, "-m", "fastuda_bench.step_process", json.dumps(order | {"file": str(file)})]
    ended = run(command, log, _LIMIT, cwd=Path.cwd(), environment=os.environ)
    found = read_json(file) if ended.rc == 0 and ended.in_time else None
    if found is None:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-_SAID_LINES:]
        how = f"rc {ended.rc}" if ended.in_time else f"ended at its limit of {_LIMIT:.0f} s"
        raise FastudaError(f"the step with {settings[-1]} failed ({how}):\n" + "\n".join(lines))
    return dict(found)
