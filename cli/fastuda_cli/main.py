"""`fastuda`: the commands put together."""

from __future__ import annotations

from typing import Any

import typer

from fastuda_cli import bench, data, doctor, evaluate, predict, recipes, study, train
from fastuda_cli.streams import guarded_streams


class _Commands(typer.Typer):
    """The commands of a process, whose streams may be files on full disks and pipes that nobody reads."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        with guarded_streams():
            return super().__call__(*args, **options)


app = _Commands(
    name="fastuda",
    help="Adapt a segmentation model from a labelled source to an unlabelled target domain, fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command("train")(train.train)
app.command("study")(study.study)
app.command("eval")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")
app.command("recipes")(recipes.recipes)
app.command("doctor")(doctor.doctor)

if __name__ == "__main__":
    app()
