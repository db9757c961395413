"""Batches of noise at a recipe's sizes, where it matters how much there is and not what it shows."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.recipe import Recipe


def made_batches(recipe: Recipe, device: torch.device, seed: int = 0) -> tuple[DomainBatch, DomainBatch]:
    """Source and target batch of the adaptation's sizes: noise, labels of every class, crops over all of the view."""
    generator = torch.Generator(device.type if device.type == "cuda" else "cpu").manual_seed(seed)
    num_classes, count = len(recipe.classes.build()), recipe.train.batch_size

    def image(size: tuple[int, int]) -> Tensor:
        shape = (count, size[1], size[0], 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)

    def label(size: tuple[int, int]) -> Tensor:
        shape = (count, size[1], size[0])
        return torch.randint(0, num_classes, shape, dtype=torch.uint8, device=device, generator=generator)

    def batch(size: tuple[int, int], *, labelled: bool) -> DomainBatch:
        crop, whole = recipe.views.crop_size, recipe.views.whole
        return DomainBatch(
            view=image(size) if whole else None,
            view_label=label(size) if whole and labelled else None,
            weak=image(crop),
            strong=image(crop),
            label=label(crop) if labelled else None,
            boxes=torch.tensor([[0.0, 0.0, size[1], size[0]]] * count, device=device),
            class_keys=torch.rand(count, num_classes, device=device, generator=generator),
            names=[f"made {i}" for i in range(count)],
        )

    views = recipe.views
    labelled = views.target_size if recipe.trains_on_target_labels else views.source_size
    return batch(labelled, labelled=True), batch(views.target_size, labelled=False)
