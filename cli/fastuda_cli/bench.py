"""`fastuda bench`: measurements, each a command; results as JSON."""

from __future__ import annotations

import typer

from fastuda_cli import (
    bench_card,
    bench_compare,
    bench_cudnn,
    bench_determinism,
    bench_evaluate,
    bench_figures,
    bench_formats,
    bench_kernels,
    bench_launches,
    bench_loader,
    bench_needs,
    bench_prepare,
    bench_probe,
    bench_ranks,
    bench_resources,
    bench_scaling,
    bench_shards,
    bench_step,
    bench_train,
)

app = typer.Typer(help="Measure fastuda on this machine.", no_args_is_help=True)
app.command("card")(bench_card.card)
app.command("probe")(bench_probe.probe)
app.command("prepare")(bench_prepare.prepare)
app.command("formats")(bench_formats.formats)
app.command("kernels")(bench_kernels.kernels)
app.command("resources")(bench_resources.resources)
app.command("step")(bench_step.step)
app.command("launches")(bench_launches.launches)
app.command("needs")(bench_needs.needs)
app.command("scaling")(bench_scaling.scaling)
app.command("loader")(bench_loader.loader)
app.command("shards")(bench_shards.shards)
app.command("train")(bench_train.train)
app.command("ranks")(bench_ranks.ranks)
app.command("evaluate")(bench_evaluate.evaluate)
app.command("cudnn")(bench_cudnn.cudnn)
app.command("determinism")(bench_determinism.determinism)
app.command("compare")(bench_compare.compare)
app.command("figures")(bench_figures.figures)
