"""`fastuda bench cudnn`: what cuDNN's fused graphs can do."""

from __future__ import annotations

from fastuda_cli import options
from fastuda_cli.bench_subject import Out, Repeats
from fastuda_cli.console import console, reported, say


def cudnn(repeats: Repeats = 3, json_file: Out = None, device: options.Device = None) -> None:
    """Whether cuDNN fuses BatchNorm and ReLU into the network's convolutions, and how fast; a shape a row."""
    with reported():
        import typer

        from fastuda.runtime.device import choose_device
        from fastuda_bench.cudnn_graphs import cudnn_rows, missing, table_of
        from fastuda_bench.results import Row, doubt_of, write_rows

        def keep(rows: list[Row]) -> None:
            if json_file is not None:
                write_rows(json_file, rows)

        chosen = choose_device(device)
        rows = cudnn_rows(chosen, repeats=repeats, keep=keep)
        console.print(table_of(rows))
        why_not = missing(chosen)
        if why_not is not None:
            say(f"nothing tried: {why_not}")
        if any(doubt_of(row) for row in rows):
            raise typer.Exit(1)
