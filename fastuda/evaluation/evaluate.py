"""A trained model evaluated on any labelled data set, its predictions kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fastuda.classes import Values, known_values
from fastuda.data.checking.audit import domain_of
from fastuda.data.datasets import prepare_evaluation, with_demo_data
from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.packing.pack import Packed
from fastuda.distributed.ranks import Ranks, joined
from fastuda.errors import UsageError
from fastuda.evaluation.label_bands import label_at
from fastuda.evaluation.label_files import label_ending, require_free, write_class_values, write_label
from fastuda.evaluation.load import load
from fastuda.evaluation.meters import Meters
from fastuda.evaluation.model import Model
from fastuda.evaluation.result import EvaluationResult
from fastuda.evaluation.scoring import EVALUATION_BATCH, scored
from fastuda.files.paths import user_path
from fastuda.layouts import LAYOUTS, one_of
from fastuda.model.segmenter import Outputs
from fastuda.printable import on_one_line
from fastuda.recipe import Domain, Recipe
from fastuda.report.display import Display, display_of


def evaluate(
    model: Model | str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    layout: str | None = None,
    images: str | None = None,
    labels: str | None = None,
    flip: bool | None = None,
    scales: Sequence[float] | None = None,
    boundary: bool = False,
    save_predictions: str | os.PathLike[str] | None = None,
    values: Values = "label-ids",
    display: Display | bool = True,
) -> EvaluationResult:
    """Scores of a trained model on a labelled split: the recipe's target or another data set.

    Memory does not grow with the number of images. As one of the ranks that torchrun started, with a model loaded on
    each, it scores a share of the split; the result is of all, the same on every rank as one process's, and the first
    rank alone shows anything.

    Args:
        model: what `load` gives, or a path for it: `evaluate("runs/demo")` scores the run's last adapted model.
        target: the data set's folder; None: the recipe's target.
        split: which of its splits, where its layout has such; None: the one the recipe names (`target.val_split`).
        layout: the folder's layout; None: that of the recipe's target.
        images, labels: a glob of the images and one of their labels, where the data set is a `folder`; None: the
            recipe's `val_images` and `val_labels`, which errors name.
        flip, scales: test-time augmentation; None: as `recipe.eval` says.
        boundary: also score boundaries and calibration, and follow figure 2's curve.
        save_predictions: a folder for a label PNG an image, at its label's size, and for classes.json.
        values: what the label PNGs hold, `label-ids` (Cityscapes', with free ones for own classes) or `train-ids`.
        display: True: progress on the standard output; False: none; or where to show it.

    Raises:
        FastudaError: a model or data set that is not there, one that is not labelled, memory that ran out.
    """
    values = known_values(values)
    display = display_of(display)
    model = model if isinstance(model, Model) else load(model)
    model = model.augmented(flip=flip, scales=scales)
    out = None if save_predictions is None else user_path(save_predictions)
    with joined(model.device) as ranks:
        own = display if ranks.first else display_of(False)
        with ranks.machine_first():
            recipe = with_demo_data(model.recipe, own.task) if target is None else model.recipe
            domain = _domain(recipe, target, split, layout, (images, labels))
            packed = prepare_evaluation(recipe, domain, own.task)
        return _scored(model, recipe, packed, ranks, out, values, own, boundary=boundary)


def _scored(
    model: Model,
    recipe: Recipe,
    packed: Packed,
    ranks: Ranks,
    out: Path | None,
    values: Values,
    display: Display,
    *,
    boundary: bool,
) -> EvaluationResult:
    share = (ranks.rank, ranks.size)
    loader = EvaluationLoader(packed, EVALUATION_BATCH, recipe.runtime.loader_threads, model.device, share=share)
    meters = Meters(recipe, model.device) if boundary else None

    def look(name: str, outputs: Outputs, label: Tensor) -> None:
        if out is not None:
            own = label_at(outputs, (label.shape[0], label.shape[1]))
            write_label(out, name, own, model.classes, values)
        if meters is not None:
            meters.add(outputs, label)

    def begin_writing() -> None:
        assert out is not None
        require_free(out, packed.names, (label_ending(values),))
        write_class_values(out, model.classes, values)

    if out is not None:
        ranks.shared(begin_writing)
    by_protocol = scored(
        model.network,
        loader,
        recipe,
        model.passes,
        progress=display.task("Evaluating"),
        on_image=look if out is not None or boundary else None,
        ranks=ranks,
    )
    if meters is not None:
        ranks.sum_(*meters.sums)
    found = meters.result() if meters is not None else (None, None)
    return EvaluationResult(by_protocol, packed.fingerprint, packed.left_out, *found)


def _domain(
    recipe: Recipe,
    root: str | os.PathLike[str] | None,
    split: str | None,
    layout: str | None,
    globs: tuple[str | None, str | None],
) -> Domain:
    domain, folder = recipe.target, None if root is None else user_path(root).absolute()
    if layout is not None and layout != domain.layout:
        if folder is None:
            raise UsageError(f"layout {layout}: say where that data set lies (--target DIR, in Python target=)")
        domain = domain_of(recipe, layout, folder)
    changes: dict[str, object] = {}
    if folder is not None:
        changes["root"] = folder
    given = [glob for glob in globs if glob is not None]
    said = on_one_line(" ".join(given), 80)
    if given and not LAYOUTS[domain.layout].by_globs:
        raise UsageError(f"{said}: globs are for a folder data set alone, and this one is {domain.layout}")
    if len(given) == 1:
        raise UsageError(f"{said}: images and labels go together, a glob for each (--images, --labels)")
    if given:
        changes["val_images"], changes["val_labels"] = given
    if split is not None and not LAYOUTS[domain.layout].splits:
        having = one_of([name for name, known in LAYOUTS.items() if known.splits])
        raise UsageError(f"split {split}: only {having} has splits by name, and this data set is {domain.layout}")
    if split is not None:
        changes["val_split"] = split
    return domain.model_copy(update=changes)
