"""`fastuda bench card`: the whole proof of speed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.bench_subject import BenchRecipe
from fastuda_cli.console import console, reported, say


def card(
    recipe: BenchRecipe = None,
    minutes: Annotated[
        float,
        typer.Option(
            help="Time for all of it; what does not fit is left out. More than 8 lengthen each part's limit as well.",
            min=0,
        ),
    ] = 8.0,
    out: Annotated[
        Path,
        typer.Option(help="Folder for results and logs; what is ok there is not measured again.", parser=options.path),
    ] = (Path("card")),
    skip: Annotated[
        str | None, typer.Option(help="Parts to leave out: cudnn,train,step-compile; `step` is every rung.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Iterations a repeat; by default 20 on a GPU, 3 on a CPU.", min=1)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Repeats; median and spread are reported.", min=1)] = 3,
    images: Annotated[
        int | None, typer.Option(help="Images to evaluate; by default 500 on a GPU, 8 on a CPU.", min=1)
    ] = None,
    tests: Annotated[
        str | None, typer.Option(help="Arguments for pytest in place of `tests`, such as files, or -k and a name.")
    ] = None,
    source: options.Source = None,
    target: options.Target = None,
    device: options.Device = None,
    set_: options.Settings = None,
) -> None:
    """The whole proof of speed, part by part: device, ladder, GPU tests, kernels, data, loop, evaluation, cuDNN."""
    with reported():
        from fastuda.recipe.file import load_recipe
        from fastuda.runtime.device import choose_device
        from fastuda_bench.card.conduct import make_card
        from fastuda_bench.card.order import Order
        from fastuda_bench.card.summary import summary_of
        from fastuda_bench.draw import drawn
        from fastuda_bench.ladder import refuse_switches
        from fastuda_bench.ladder_chart import ladder_chart

        chosen = choose_device(device)
        name = recipe or ("gta2cs" if chosen.type == "cuda" else "demo")
        refuse_switches(set_ or [])
        load_recipe(name, ["model.weights=random", *options.settings(set_, source, target)])
        folder = out.absolute()
        order = Order(
            folder=folder,
            recipe=name,
            device=chosen,
            settings=tuple(set_ or ()),
            source=source and source.absolute(),
            target=target and target.absolute(),
            minutes=minutes,
            skip=frozenset(word.strip() for word in skip.split(",")) if skip else frozenset(),
            iterations=iterations,
            repeats=repeats,
            images=images,
            tests=tests,
        )
        made = make_card(order, say)
        if made.step and drawn(ladder_chart, folder / "step.png", made.step, say):
            say(f"picture: {folder / 'step.png'}")
        console.print(summary_of(made, folder))
        for doubt in made.content["doubts"]:
            say(doubt)
        say(f"results: {folder}")
        if made.exit_code:
            raise typer.Exit(made.exit_code)
