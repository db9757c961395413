"""`fastuda eval`: a model's scores on a labelled split, by both protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda_cli import options
from fastuda_cli.console import console, reported


def evaluate(
    run_or_weights: options.RunOrWeights,
    target: options.Target = None,
    split: Annotated[str | None, typer.Option(help="Cityscapes: the split to score on; val by default.")] = None,
    layout: Annotated[
        str | None, typer.Option(help="The folder's layout, if not the recipe's target: gta5, synthia or cityscapes.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe for weights that do not carry one.")] = None,
    stage: options.Stage = "adapted",
    which: options.Which = "last",
    save_predictions: Annotated[
        Path | None,
        typer.Option(help="Write a Cityscapes labelIds PNG an image, at its label's size, here."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the scores to this file.")] = None,
    device: options.Device = None,
) -> None:
    """Score a model: per-class IoU, mIoU, accuracies; at full label size and the way the authors did it."""
    with reported():
        from fastuda.display import Display
        from fastuda.score import score, write_scores
        from fastuda.tables import protocol_table
        from fastuda.trained import load_trained

        trained = load_trained(run_or_weights, stage=stage, which=which, recipe=recipe, device=device)
        display = Display(console)
        scores = score(
            trained, display.task, root=target, split=split, layout=layout, save_predictions=save_predictions
        )
        console.print(protocol_table(scores))
        if json_file is not None:
            write_scores(json_file, scores)
