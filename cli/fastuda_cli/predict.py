"""`fastuda predict`: a model's labels for any images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.class_values import say_values
from fastuda_cli.console import console, reported, say


def predict(
    run_or_weights: options.RunOrWeights,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", parser=options.path)],
    out: Annotated[Path, typer.Option(help="Folder for the predictions.", parser=options.path)],
    recipe: Annotated[str | None, typer.Option(help="Recipe for weights that do not carry one.")] = None,
    stage: options.Stage = "adapted",
    which: options.Which = "last",
    values: options.Values = "label-ids",
    device: options.Device = None,
) -> None:
    """Write a colour overlay and a label PNG for each image, and which value is which class to classes.json."""
    with reported():
        from fastuda.display import Display
        from fastuda.predict import find_images
        from fastuda.predict import predict as run_prediction
        from fastuda.trained import load_trained

        kind = options.values(values)
        inputs = find_images(images)
        trained = load_trained(run_or_weights, stage=stage, which=which, recipe=recipe, device=device)
        run_prediction(trained, inputs, out, Display(console).task("Predicting"), kind)
        say(f"{len(inputs)} images: {out}")
        say_values(trained.recipe.classes.build(), kind, out)
