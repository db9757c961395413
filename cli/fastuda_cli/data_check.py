"""`fastuda data check`: every file looked at before a training depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported, say

if TYPE_CHECKING:
    from fastuda.classes import ClassSet
    from fastuda.data.report import CheckReport, Comparison
    from fastuda.recipe import Domain


def check(
    layout: Annotated[str, typer.Argument(help="gta5, synthia, cityscapes or folder.")],
    folder: Annotated[
        Path,
        typer.Argument(help="The data set's folder; only ever read.", metavar="DIR", parser=options.path),
    ],
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
    report_file: Annotated[
        Path | None,
        typer.Option("--report", help="Also write the report: .html with pictures, or .json.", parser=options.path),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the report as JSON.", parser=options.path)
    ] = None,
    set_: options.Settings = None,
) -> None:
    """Decode every file, name every fault, say what looks wrong, count the classes; exit 1 if a file is faulty.

    Faulty samples go on a skip list in the cache folder, and training leaves them out.
    """
    with reported():
        from fastuda.check_report.page import check_page
        from fastuda.data.audit import audit, comparison, domain_of, next_steps, write_report
        from fastuda.data.listing import counted
        from fastuda.display import Display
        from fastuda.errors import UsageError
        from fastuda.paths import user_path
        from fastuda.recipe_file import load_recipe

        if report_file is not None and report_file.suffix not in (".html", ".json"):
            raise UsageError(f"--report {report_file}: a file that ends in .html or .json")
        resolved = load_recipe(recipe, set_ or [])
        display = Display(console)
        domain = domain_of(resolved, layout, folder)
        report, skip_list = audit(resolved, domain, split, labels, display.task("Checking"))
        gaps = None
        if compare is not None:
            other = domain_of(resolved, compare[0], user_path(compare[1]))
            gaps = comparison(resolved, report, other, display.task("Checking the other"))
        console.print(check_page(report, gaps))
        faults = counted(len(report.problems), "fault") if report.problems else "all sound"
        say(f"{counted(report.num_samples, 'sample')}, {faults}")
        if str(report.left_out):
            say(f"not used: {report.left_out}")
        steps = next_steps(report, recipe, skip_list)
        for step in steps:
            say(f"next: {step}")
        for path in (json_file, report_file):
            if path is not None and path.suffix == ".html":
                _write_html(path, report, gaps, domain, resolved.classes.build(), steps)
            elif path is not None:
                write_report(path, report, gaps)
        if report.problems:
            raise typer.Exit(1)


def _write_html(
    path: Path, report: CheckReport, gaps: Comparison | None, domain: Domain, classes: ClassSet, steps: list[str]
) -> None:
    from fastuda.check_report.html import check_html
    from fastuda.check_report.sheet import suspects_sheet
    from fastuda.data.cache import write_atomic

    write_atomic(path, check_html(report, gaps, suspects_sheet(report, domain, classes), steps).encode())
