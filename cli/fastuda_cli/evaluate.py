"""`fastuda eval`: a model's scores on a labelled split, by both protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastuda.layouts import LAYOUTS, one_of
from fastuda_cli import options
from fastuda_cli.class_values import say_values
from fastuda_cli.console import console, reported, say
from fastuda_cli.launch import started


def evaluate(
    context: typer.Context,
    run_or_weights: options.RunOrWeights,
    target: options.Target = None,
    split: Annotated[
        str | None,
        typer.Option(help="The split to score on, where the data set has splits; the recipe's target.val_split."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help=f"The folder's layout, if not the recipe's target: {one_of([*LAYOUTS])}."),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Glob of the images in a `folder` data set, such as 'train/*.jpg'; default: val_images."),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Glob of their labels; default: val_labels.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe for weights that do not carry one.")] = None,
    stage: options.Stage = "adapted",
    which: options.Which = "last",
    save_predictions: Annotated[
        Path | None,
        typer.Option(help="Write a label PNG an image, at its label's size, here.", parser=options.path),
    ] = None,
    values: options.Values = "label-ids",
    boundary: Annotated[
        bool,
        typer.Option("--boundary", help="Also score boundaries and confidence (the paper's figure 2), with pictures."),
    ] = False,
    charts: Annotated[
        Path | None,
        typer.Option(help="Folder of --boundary's pictures; default RUN/evaluation.", parser=options.path),
    ] = None,
    flip: options.Flip = None,
    scales: options.Scales = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the scores to this file.", parser=options.path)
    ] = None,
    device: options.Device = None,
    gpus: options.Gpus = None,
) -> None:
    """Score a model: per-class IoU, mIoU, accuracies; at full label size and the way the authors did it."""
    with reported():
        if gpus is not None:
            started(context, gpus, device)
            return
        import fastuda
        from fastuda.classes import known_values
        from fastuda.distributed.place import Place
        from fastuda.evaluation.meters import BOUNDARY_RADIUS
        from fastuda.evaluation.result import write_result
        from fastuda.files.disk import make_folder
        from fastuda.metrics.confidence_chart import reliability_chart, threshold_chart
        from fastuda.report.display import Display
        from fastuda.report.tables import boundary_table, confidence_table, protocol_table

        kind = known_values(values)
        model = fastuda.load(run_or_weights, stage=stage, which=which, recipe=recipe, device=device)
        model = model.augmented(flip=flip, scales=options.scales(scales))
        result = fastuda.evaluate(
            model,
            target,
            split=split,
            layout=layout,
            images=images,
            labels=labels,
            boundary=boundary,
            save_predictions=save_predictions,
            values=kind,
            display=Display(console),
        )
        if Place.of_environment().rank > 0:
            return
        console.print(protocol_table(result.by_protocol, model.passes.precision))
        if save_predictions is not None:
            say_values(model.classes, kind, save_predictions)
        if result.boundary is not None and result.confidence is not None:
            tau = model.recipe.method.tau
            folder = charts or (run_or_weights if run_or_weights.is_dir() else Path(".")) / "evaluation"
            console.print(boundary_table(result.boundary))
            console.print(confidence_table(result.confidence, tau, BOUNDARY_RADIUS))
            threshold_chart(make_folder(folder) / "confidence.png", result.confidence, tau)
            reliability_chart(folder / "reliability.png", result.confidence)
            say(f"pictures: {folder / 'confidence.png'}, {folder / 'reliability.png'}")
        if json_file is not None:
            write_result(json_file, result, model)
