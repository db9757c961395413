"""`fastuda data check`: every file looked at before a training depends on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastuda.layouts import LAYOUTS, one_of
from fastuda_cli import options
from fastuda_cli.console import console, reported, say

if TYPE_CHECKING:
    from fastuda.classes import ClassSet
    from fastuda.data.checking.report import CheckReport, Comparison
    from fastuda.recipe import Domain, Recipe


def check(
    layout: Annotated[str, typer.Argument(help=f"{one_of([*LAYOUTS])}.")],
    folder: Annotated[
        Path,
        typer.Argument(help="The data set's folder; only ever read.", metavar="DIR", parser=options.path),
    ],
    recipe: Annotated[str, typer.Option(help="Recipe with the classes, globs and ids.")] = "gta2cs",
    split: Annotated[str, typer.Option(help="train or val.", metavar="train|val")] = "train",
    side: Annotated[
        str | None,
        typer.Option("--domain", help="Which of the recipe's domains is meant.", metavar="source|target"),
    ] = None,
    labels: Annotated[
        bool | None,
        typer.Option(
            "--labels/--no-labels",
            help="Look at labels too; default: where a run reads them, in val, and in train of the recipe's source.",
        ),
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
        from fastuda.data.checking.audit import audit, domain_of, labelled_split, next_steps, write_report
        from fastuda.data.checking.report import compare as compare_classes
        from fastuda.data.reading.listing import counted
        from fastuda.errors import UsageError
        from fastuda.files.paths import user_path
        from fastuda.recipe.file import load_recipe
        from fastuda.report.data_check.page import check_page
        from fastuda.report.display import Display

        if report_file is not None and report_file.suffix.lower() not in (".html", ".json"):
            raise UsageError(f"--report {report_file}: a file that ends in .html or .json")
        for path in (json_file, report_file):
            if path is not None and not path.parent.is_dir():
                raise UsageError(f"{path}: there is no folder {path.parent} to write the report to")
        resolved = load_recipe(recipe, set_ or [])
        display = Display(console)
        side = side or ("target" if _only_target(resolved, layout, split) else None)
        domain = domain_of(resolved, layout, folder, side)
        report, skip_list = audit(resolved, domain, split, labels, display.task("Checking"), side)
        gaps = others = None
        if compare is not None:
            opposite = {"source": "target", "target": "source", None: None}[side]
            others_side = opposite if compare[0] == layout else None
            other = domain_of(resolved, compare[0], user_path(compare[1]), others_side)
            read = labelled_split(resolved, other, others_side)
            others, _ = audit(resolved, other, read, True, display.task("Checking the other"))
            gaps = compare_classes(report, others)
        console.print(check_page(report, gaps))
        faults = counted(len(report.problems), "fault") if report.problems else "all sound"
        say(f"{counted(report.num_samples, 'sample')}, {faults}")
        if str(report.left_out):
            say(f"not used: {report.left_out}")
        steps = next_steps(report, recipe, skip_list)
        if others is not None and others.problems:
            console.print(check_page(replace(others, suspicions=[], sizes={}, pixels={})))
            faulty = counted(len(others.problems), "fault")
            steps.insert(0, f"the other, {others.root}, has {faulty}; check it by itself for all of them")
        for step in steps:
            say(f"next: {step}")
        for path in (json_file, report_file):
            if path is not None and path.suffix.lower() == ".html":
                _write_html(path, report, gaps, domain, resolved.classes.build(), steps)
            elif path is not None:
                write_report(path, report, gaps)
        if report.problems or (others is not None and others.problems):
            raise typer.Exit(1)


def _only_target(recipe: Recipe, layout: str, split: str) -> bool:
    """Whether only the target can be meant: it alone has an evaluation split to look at."""
    return split == "val" and recipe.target.layout == layout == recipe.source.layout and not recipe.source.val_images


def _write_html(
    path: Path, report: CheckReport, gaps: Comparison | None, domain: Domain, classes: ClassSet, steps: list[str]
) -> None:
    from fastuda.files.disk import write_atomic
    from fastuda.report.data_check.html import check_html
    from fastuda.report.data_check.sheet import suspects_sheet

    write_atomic(
        path,
        check_html(report, gaps, suspects_sheet(report, domain, classes), steps).encode("utf-8", "backslashreplace"),
    )
