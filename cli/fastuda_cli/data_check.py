"""`fastuda data check`: every file looked at before a training depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported, say


def check(
    layout: Annotated[str, typer.Argument(help="gta5, synthia, cityscapes or folder.")],
    folder: Annotated[Path, typer.Argument(help="The data set's folder; only ever read.", metavar="DIR")],
    recipe: Annotated[str, typer.Option(help="Recipe with the classes, globs and ids.")] = "gta2cs",
    split: Annotated[str, typer.Option(help="train or val.", metavar="train|val")] = "train",
    labels: Annotated[
        bool | None,
        typer.Option("--labels/--no-labels", help="Look at labels too; default: where training reads them."),
    ] = None,
    compare: Annotated[
        tuple[str, Path] | None,
        typer.Option(help="Compare classes with another data set.", metavar="LAYOUT DIR"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the report to this file.")] = None,
    set_: options.Settings = None,
) -> None:
    """Decode every file, name every fault, count the classes; exit 1 if something is wrong.

    Faulty samples go on a skip list in the cache folder, and training leaves them out.
    """
    with reported():
        from fastuda.data.audit import audit, comparison, domain_of, write_report
        from fastuda.display import Display
        from fastuda.recipe_file import load_recipe
        from fastuda.tables import check_tables, comparison_table

        resolved = load_recipe(recipe, set_ or [])
        display = Display(console)
        domain = domain_of(resolved, layout, folder)
        report, skip_list = audit(resolved, domain, split, labels, display.task("Checking"))
        for table in check_tables(report):
            console.print(table)
        if report.problems:
            say(
                f"{len(report.problems)} faults; {len(report.skip)} of {report.num_samples} samples will be skipped "
                f"(skip list: {skip_list})"
            )
        else:
            say(f"{report.num_samples} samples, all sound")
        if compare is not None:
            other = domain_of(resolved, compare[0], compare[1])
            gaps = comparison(resolved, report, other, display.task("Checking the other"))
            console.print(comparison_table(gaps))
        if json_file is not None:
            write_report(json_file, report)
        if report.problems:
            raise typer.Exit(1)
