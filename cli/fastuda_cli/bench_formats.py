"""`fastuda bench formats`: formats that a pack could have."""

from __future__ import annotations

from typing import Annotated

import typer

from fastuda_cli.bench_subject import Out, Repeats
from fastuda_cli.console import reported


def formats(
    images: Annotated[int, typer.Option(help="Images to measure on.", min=1)] = 4,
    repeats: Repeats = 5,
    json_file: Out = None,
) -> None:
    """Bytes, decode cost and error of the formats that a pack could have."""
    with reported():
        from fastuda_bench.formats import main
        from fastuda_bench.results import write_rows

        rows = main(images, repeats)
        if json_file is not None:
            write_rows(json_file, rows)
