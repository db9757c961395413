"""`fastuda`: the commands put together."""

from __future__ import annotations

import typer

from fastuda_cli import bench, data, doctor, evaluate, predict, recipes, study, train

app = typer.Typer(
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
