"""`fastuda study`: a table's rows, each with several seeds, beside the paper's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported, say


def study(
    table: Annotated[str, typer.Argument(help="A table's name, a TOML file with rows of your own, or `list`.")],
    base: Annotated[
        str | None, typer.Option(help="The recipe that the rows change; default the table's own pair.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    source: options.Source = None,
    target: options.Target = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="The study's folder; default runs/study-BASE. Tables in one folder share runs.",
            parser=options.path,
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="A trained network that all rows start from: no warm-up.", parser=options.path),
    ] = None,
    control: Annotated[
        bool,
        typer.Option(
            "--control/--no-control",
            help="Add a row that trains on the source alone for as long, where the table has none.",
        ),
    ] = True,
    force: options.Force = False,
    max_time: options.MaxTime = None,
    workers: options.Workers = 1,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """Run a table's rows with several seeds and print mean ± deviation beside the paper's mIoU.

    Every row is compared with a control, which trains on the source alone for as long: its gain seed by seed, the 95 %
    interval, and whether that is better, worse, or more seeds are needed to tell.

    Rows with the same warm-up share it, as do tables on the same base. Runs go one after another, or --workers K at a
    time, each on a GPU of its own. After a stop or a kill the same command goes on: finished runs are kept.
    """
    with reported():
        if table == "list":
            _list()
            return
        from fastuda.distributed.place import Place
        from fastuda.errors import UsageError
        from fastuda.recipe.file import recipe_name
        from fastuda.report.display import Display
        from fastuda.study.conduct import conduct
        from fastuda.study.plan import plan_study
        from fastuda.study.table import load_table
        from fastuda_cli.spread import show_spread

        if Place.of_environment().size > 1:
            raise UsageError(
                "a study gives each run one process: leave torchrun out, and --workers K runs several at a time"
            )
        rows = load_table(table)
        base = base or rows.base
        folder = run or Path("runs") / f"study-{recipe_name(base)}"
        chosen = options.settings(set_, source, target)
        plan = plan_study(rows, base, options.seeds(seeds), chosen, folder, init=init, control=control)
        name = Path(table).stem
        deadline = options.deadline(max_time)
        display = Display(console).unfailing()
        content = conduct(
            plan, folder, name, device=device, display=display, force=force, deadline=deadline, ends_process=True,
            workers=workers,
        )  # fmt: skip
        show_spread(display, content, folder, name, "the same command")


def _list() -> None:
    from rich.markup import escape
    from rich.table import Table

    from fastuda.study.table import load_table, table_names

    for name in table_names():
        content = load_table(name)
        table = Table(title=f"{name}: {escape(content.title)}", title_justify="left")
        for head in ("row", "recipe over a base", "paper's mIoU"):
            table.add_column(head)
        for row in content.rows:
            settings = "".join(f" --set {setting}" for setting in row.set)
            paper = "–" if row.paper is None else f"{row.paper:.1f}"
            table.add_row(escape(row.name), escape(row.recipe("BASE") + settings), paper)
        console.print(table)
    say("`fastuda study TABLE --base RECIPE --seeds 0,1,2` runs one; `fastuda train gta2cs+cmix` runs a row alone.")
