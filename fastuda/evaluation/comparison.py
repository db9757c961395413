"""Several models beside one another: a picture of their answers on the evaluation split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.packing.pack import Packed
from fastuda.model.build import read_model
from fastuda.model.inference import evaluation_logits
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.report.pictures import Pixels, grid, overlay, save_picture
from fastuda_kernels.pseudo_label import pseudo_label


@torch.no_grad()
def comparison_grid(
    path: Path, models: list[tuple[str, Path]], evaluation: Packed, recipe: Recipe, passes: Passes, device: torch.device
) -> None:
    """A PNG with image, label and each model's prediction for `eval.pictures` evaluation images.

    `models` are column titles and the files of `save_model`.
    """
    if recipe.eval.pictures == 0:
        return
    classes = recipe.classes.build()
    loader = EvaluationLoader(evaluation, 1, 1, torch.device("cpu"), limit=recipe.eval.pictures)
    batches = list(loader)
    rows: list[list[Pixels]] = []
    for batch in batches:
        image = batch.images[0].numpy()
        label = np.asarray(Image.fromarray(batch.labels[0].numpy()).resize(evaluation.size, Image.Resampling.NEAREST))
        rows.append([image, overlay(image, label, classes, 1.0)])
    for _, file in models:
        model, _ = read_model(file, device)
        for row, batch in zip(rows, batches, strict=True):
            outputs = evaluation_logits(model, batch.images.to(device), recipe.eval, passes)
            size = (evaluation.size[1], evaluation.size[0])
            predicted, _ = pseudo_label(outputs.logits, size, align_corners=outputs.align_corners)
            row.append(overlay(row[0], predicted[0].cpu().numpy(), classes, 1.0))
    columns = ["image", "label", *(title.replace("_", " ") for title, _ in models)]
    save_picture(path, grid(columns, rows, classes))
