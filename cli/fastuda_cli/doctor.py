"""`fastuda doctor`: what this machine has, what is missing, what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported


def doctor(
    gta5: Annotated[Path | None, typer.Option(help="Look at a GTA5 folder too.", parser=options.path)] = None,
    synthia: Annotated[Path | None, typer.Option(help="Look at a SYNTHIA folder too.", parser=options.path)] = None,
    cityscapes: Annotated[
        Path | None, typer.Option(help="Look at a Cityscapes folder too.", parser=options.path)
    ] = None,
) -> None:
    """Look at GPU, driver, torch, DALI, Triton, disk and data sets; exit 1 if something needed is missing."""
    with reported():
        from rich.markup import escape
        from rich.table import Table

        from fastuda.recipe import Domain
        from fastuda.report.doctor import examine

        domains = []
        if gta5 is not None:
            domains.append(Domain(layout="gta5", root=gta5))
        if synthia is not None:
            domains.append(Domain(layout="synthia", root=synthia))
        if cityscapes is not None:
            domains.append(Domain(layout="cityscapes", root=cityscapes))
        findings = examine(domains)
        colours = {"ok": "green", "note": "yellow", "missing": "red"}
        table = Table("", "found", "what to do")
        for finding in findings:
            subject = f"[{colours[finding.status]}]{finding.subject}[/]"
            table.add_row(subject, escape(finding.found), escape(finding.advice))
        console.print(table)
        if any(finding.status == "missing" for finding in findings):
            raise typer.Exit(1)
