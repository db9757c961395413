"""Scoring a trained model on any labelled data set, and keeping its predictions."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from fastuda.data.audit import domain_of
from fastuda.data.cache import write_atomic
from fastuda.data.evaluation_loader import EvaluationLoader
from fastuda.datasets import Progress, prepare_evaluation, with_demo_data
from fastuda.errors import UsageError
from fastuda.evaluate import evaluate
from fastuda.metrics import Scores
from fastuda.predict import label_at, write_label_ids
from fastuda.recipe import Domain, Recipe
from fastuda.trained import Trained

_BATCH = 4


def score(
    trained: Trained,
    progress: Progress,
    *,
    root: Path | None = None,
    split: str | None = None,
    layout: str | None = None,
    save_predictions: Path | None = None,
) -> dict[str, Scores]:
    """Scores by protocol on the recipe's target or, by `root`, `split` and `layout`, on another data set.

    `save_predictions` receives NAME_labelIds.png for every image, at its label's own size. Raises
    FastudaError for a data set that is not there or not labelled.
    """
    recipe = with_demo_data(trained.recipe, progress)
    domain = _domain(recipe, root, split, layout)
    packed = prepare_evaluation(recipe, domain, progress)
    loader = EvaluationLoader(packed, _BATCH, recipe.runtime.loader_threads, trained.device)
    classes = recipe.classes.build()

    def keep(name: str, logits: Tensor, label: Tensor) -> None:
        assert save_predictions is not None
        write_label_ids(save_predictions, name, label_at(logits, (label.shape[0], label.shape[1])), classes)

    return evaluate(
        trained.model,
        loader,
        recipe,
        trained.passes,
        progress=progress("Evaluating"),
        on_image=None if save_predictions is None else keep,
    )


def write_scores(path: Path, scores: dict[str, Scores]) -> None:
    """Scores by protocol as JSON, written whole or not at all."""
    content = {protocol: one.to_json() for protocol, one in scores.items()}
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


def _domain(recipe: Recipe, root: Path | None, split: str | None, layout: str | None) -> Domain:
    domain = recipe.target
    if layout is not None and layout != domain.layout:
        if root is None:
            raise UsageError(f"--layout {layout}: say where that data set lies with --target DIR")
        domain = domain_of(recipe, layout, root)
    changes: dict[str, object] = {}
    if root is not None:
        changes["root"] = root.absolute()
    if split is not None and domain.layout != "cityscapes":
        raise UsageError(f"--split {split}: only Cityscapes has splits by name, and this data set is {domain.layout}")
    if split is not None:
        changes["val_split"] = split
    return domain.model_copy(update=changes)
