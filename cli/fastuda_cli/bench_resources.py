"""`fastuda bench resources`: what the kernels take of a GPU that need not be there."""

from __future__ import annotations

from typing import Annotated

import typer

from fastuda_cli.bench_subject import Out, numbers
from fastuda_cli.console import reported


def resources(
    capability: Annotated[
        str, typer.Option(help="Compute capabilities without their point, with commas between them.")
    ] = "80,86,90",
    json_file: Out = None,
) -> None:
    """Registers, shared memory and spills of every kernel, compiled here for GPUs that need not be here."""
    with reported():
        from fastuda_bench.kernel_resources import main
        from fastuda_bench.results import write_rows

        rows = main(numbers(capability, "--capability"))
        if json_file is not None:
            write_rows(json_file, rows)
