"""`fastuda doctor`: what this machine has, what is missing, what to do."""

from __future__ import annotations

from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from fastuda.layouts import LAYOUTS
from fastuda_cli import options
from fastuda_cli.console import console, reported


def doctor(**folders: Any) -> None:
    """Look at GPU, driver, torch, DALI, Triton, disk and data sets; exit 1 if something needed is missing."""
    with reported():
        from rich.markup import escape
        from rich.table import Table

        from fastuda.recipe import Domain
        from fastuda.report.doctor import examine

        named = {name: folders.get(_parameter(name)) for name in _KNOWN}
        domains = [Domain(layout=name, root=root) for name, root in named.items() if root is not None]
        findings = examine(domains)
        colours = {"ok": "green", "note": "yellow", "missing": "red"}
        table = Table("", "found", "what to do")
        for finding in findings:
            subject = f"[{colours[finding.status]}]{finding.subject}[/]"
            table.add_row(subject, escape(finding.found), escape(finding.advice))
        console.print(table)
        if any(finding.status == "missing" for finding in findings):
            raise typer.Exit(1)


def _parameter(layout: str) -> str:
    """A layout's name as Python, and from there typer, can call an option: `dark-zurich` is `--dark-zurich`."""
    return layout.replace("-", "_")


_KNOWN = [name for name, layout in LAYOUTS.items() if not layout.by_globs]
_OPTIONS = {
    _parameter(name): Annotated[
        Path | None, typer.Option(help=f"Look at a folder of {LAYOUTS[name].title} too.", parser=options.path)
    ]
    for name in _KNOWN
}
# What typer reads options from: one a layout.
doctor.__annotations__ = {**_OPTIONS, "return": None}
doctor.__signature__ = Signature(  # type: ignore[attr-defined]
    [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in _OPTIONS.items()]
)
