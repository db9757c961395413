"""`fastuda bench determinism`: what the same bits every time cost."""

from __future__ import annotations

from fastuda_cli import options
from fastuda_cli.bench_subject import BenchRecipe, Iterations, Out, Repeats, subject
from fastuda_cli.console import console, reported, say


def determinism(
    recipe: BenchRecipe = None,
    repeats: Repeats = 5,
    iterations: Iterations = None,
    json_file: Out = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """Milliseconds of one iteration without and with runtime.deterministic, in turn, each in its own process."""
    with reported():
        from fastuda_bench.determinism import determinism_row, refuse_switch, table_of
        from fastuda_bench.results import write_rows

        refuse_switch(set_ or [])
        with subject(recipe, None, None, device, set_) as bench:
            on_gpu = bench.device.type == "cuda"
            row = determinism_row(
                bench.recipe,
                bench.name,
                recipe or ("gta2cs" if on_gpu else "demo"),
                ["model.weights=random", *(set_ or [])],
                bench.device,
                bench.folder,
                repeats=repeats,
                iterations=iterations or (100 if on_gpu else 10),
                report=say,
            )
            console.print(table_of(row))
            if json_file is not None:
                write_rows(json_file, bench.recorded([row]))
