"""Packed splits of a recipe: its own data, or where it names none, made pairs at its sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from fastuda.data.datasets import Datasets, Progress, prepare_all, with_demo_data
from fastuda.data.loading.batch import DomainBatch
from fastuda.data.loading.made import made_batches
from fastuda.data.packing.pack import Packed
from fastuda.data.packing.prepare import prepare
from fastuda.errors import UsageError
from fastuda.layouts import GTA5
from fastuda.recipe import Data, Domain, Recipe
from fastuda_bench.prepare import write_pairs

NUM_PAIRS = 12
CITYSCAPES_SIZE = (2048, 1024)


def bench_data(recipe: Recipe, folder: Path, progress: Progress) -> tuple[Datasets, str]:
    """What the recipe trains on, packed, and what it is in words.

    A recipe with both roots (or the demo) is packed into its own cache; any other gets 12 made pairs of
    GTA5's size, packed below `folder` in the recipe's format and sizes. Raises FastudaError as `prepare` does.
    """
    recipe = with_demo_data(recipe, progress)
    if recipe.source.root is not None and recipe.target.root is not None:
        return prepare_all(recipe, progress), "the demo's data" if recipe.demo is not None else "prepared data"
    if (recipe.source.root is None) != (recipe.target.root is None):
        raise UsageError("give both --source and --target, or neither for made pairs")
    root = folder / "pairs"
    write_pairs(root, NUM_PAIRS)
    domain, data = Domain(layout=GTA5.name, root=root), Data(cache=folder / "cache", pack=recipe.data.pack)
    classes = recipe.classes.build()
    source = prepare(domain, "train", size=recipe.views.source_size, labels="resized", classes=classes, data=data)
    target = prepare(domain, "train", size=recipe.views.target_size, labels="none", classes=classes, data=data)
    return Datasets(source, target, source), f"{NUM_PAIRS} made pairs"


def made_evaluation(recipe: Recipe, folder: Path, num_images: int) -> Packed:
    """Made pairs of Cityscapes' size, packed below `folder` as an evaluation split: a few, repeated to `num_images`."""
    root, different = folder / "evaluation", min(NUM_PAIRS, num_images)
    write_pairs(root, different, size=CITYSCAPES_SIZE)
    domain, data = Domain(layout=GTA5.name, root=root), Data(cache=folder / "cache", pack=recipe.data.pack)
    size, classes = recipe.eval.size, recipe.classes.build()
    packed = prepare(domain, "train", size=size, labels="own", classes=classes, data=data)
    chosen = [i % different for i in range(num_images)]
    names, records = [packed.names[i] for i in chosen], [packed.records[i] for i in chosen]
    return replace(packed, names=names, records=records)


def bench_batches(
    recipe: Recipe, device: torch.device, folder: Path, progress: Progress, *, prepared: bool
) -> tuple[DomainBatch, DomainBatch]:
    """A source and a target batch: the first of `bench_data` if `prepared`, or noise of the same sizes."""
    if not prepared:
        return made_batches(recipe, device)
    from fastuda.data.loading.training_loader import TrainingLoader  # needs DALI, and noise does not

    data, _ = bench_data(recipe, folder, progress)
    source, target = (
        next(TrainingLoader(data.source, "source", recipe, device)),
        next(TrainingLoader(data.target, "target", recipe, device)),
    )
    return source.map(torch.clone), target.map(torch.clone)  # DALI takes its buffers back
