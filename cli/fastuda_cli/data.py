"""`fastuda data`: the group of data commands."""

from __future__ import annotations

import typer

from fastuda_cli import data_check, data_demo, data_prepare, data_show

app = typer.Typer(help="Draw, check, pack and look at data.", no_args_is_help=True)
app.command("demo")(data_demo.demo)
app.command("check")(data_check.check)
app.command("prepare")(data_prepare.prepare)
app.command("show")(data_show.show)
