"""`fastuda predict`: a model's labels for any images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.class_values import say_values
from fastuda_cli.console import complain, console, reported, say
from fastuda_cli.launch import started


def predict(
    context: typer.Context,
    run_or_weights: options.RunOrWeights,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", parser=options.path)],
    out: Annotated[Path, typer.Option(help="Folder for the predictions.", parser=options.path)],
    recipe: Annotated[str | None, typer.Option(help="Recipe for weights that do not carry one.")] = None,
    stage: options.Stage = "adapted",
    which: options.Which = "last",
    values: options.Values = "label-ids",
    tiled: Annotated[
        bool,
        typer.Option(
            "--tiled",
            help="Read images larger than the network's input at their own resolution, in overlapping windows.",
        ),
    ] = False,
    flip: options.Flip = None,
    scales: options.Scales = None,
    device: options.Device = None,
    gpus: options.Gpus = None,
) -> None:
    """Write a colour overlay and a label PNG for each image, and which value is which class to classes.json.

    An image that cannot be read is named, and the others are predicted; the exit code is then 1.
    """
    with reported():
        if gpus is not None:
            started(context, gpus, device)
            return
        import fastuda
        from fastuda.classes import known_values
        from fastuda.distributed.ranks import joined
        from fastuda.errors import FastudaError
        from fastuda.evaluation.predict import find_images
        from fastuda.evaluation.predict import predict as run_prediction
        from fastuda.report.display import Display

        kind = known_values(values)
        inputs = find_images(images)
        model = fastuda.load(run_or_weights, stage=stage, which=which, recipe=recipe, device=device)
        model = model.augmented(flip=flip, scales=options.scales(scales))
        with joined(model.device) as ranks:
            task = Display(console).task("Predicting")
            faults = run_prediction(model, inputs, out, task, kind, tiled=tiled, ranks=ranks)
        if not ranks.first:
            return
        for fault in faults:
            complain(str(fault))
        say(f"{len(inputs) - len(faults)} images: {out}")
        say_values(model.classes, kind, out)
        if faults:
            raise FastudaError(f"{len(faults)} of {len(inputs)} images could not be read and were left out")
