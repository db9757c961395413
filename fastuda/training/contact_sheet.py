"""One batch as the network sees it: crops, class-mix and HTCM, with their labels laid over."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastuda.classes import IGNORE_INDEX, ClassSet
from fastuda.data.datasets import Datasets
from fastuda.data.loading.batch import DomainBatch
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.errors import UsageError
from fastuda.evaluation.model import Model
from fastuda.method.draws import Draws
from fastuda.method.mixing import mix_crops, mixed_views
from fastuda.method.pseudo_labels import PseudoLabels, by_confidence_rule, label_target
from fastuda.model.passes import Passes, in_training
from fastuda.recipe import Recipe
from fastuda.report.pictures import grid, overlay
from fastuda_kernels.masked_mix import Normalisation


def contact_sheet(recipe: Recipe, data: Datasets, trained: Model | None, iteration: int = 0) -> Image.Image:
    """The batch of one iteration: weak, strong, class-mixed weak and strong, HTCM; each beside its label.

    Pseudo-labels come from `trained`, on the BatchNorm statistics that the recipe's teacher has; without a model they
    are unknown (ignored), and HTCM pastes nothing.
    """
    device = torch.device("cpu") if trained is None else trained.device
    source, target = (
        next(TrainingLoader(packed, domain, recipe, device, start_iteration=iteration))
        for domain, (_, packed) in data.trained_on(adapts=True).items()
    )
    assert source.label is not None
    passes = Passes.of(recipe, device) if trained is None else trained.passes
    draws = Draws(recipe.seed, torch.tensor(iteration, device=device))
    classes = recipe.classes.build()
    if trained is None:
        pseudo = _unknown(target)
        st = hts = mix_crops(source, target, pseudo, recipe, passes, draws, "nowhere")
    elif trained.network.num_classes != len(classes):
        raise UsageError(f"{trained.file}: knows {trained.network.num_classes} classes, the recipe {len(classes)}")
    else:
        with torch.no_grad():
            pseudo = label_target(in_training(trained.network, recipe.method.teacher_batch_norm), target, passes)
            student = in_training(trained.network, recipe.method.student_batch_norm)
            views = mixed_views(student, source, target, pseudo, recipe, passes, draws)
        st, hts = views.st, views.hts

    columns = ["source weak", "label", "source strong", "target weak", "confident pseudo-label", "target strong"]
    columns += ["class-mixed weak", "class-mixed strong", "label", "HTCM-mixed", "label"]
    confident = pseudo.only(by_confidence_rule(pseudo, recipe.method).above(recipe.method.tau)).label
    rows = []
    for i in range(len(source.names)):
        mixed_weak, mixed_strong, mixed_hts = (
            _pixels(image[i], passes.normalisation) for image in (st.weak, st.strong, hts.hts)
        )
        rows.append(
            [
                source.weak[i].cpu().numpy(),
                _over(source.weak[i], source.label[i], classes),
                source.strong[i].cpu().numpy(),
                target.weak[i].cpu().numpy(),
                _over(target.weak[i], confident[i], classes),
                target.strong[i].cpu().numpy(),
                mixed_weak,
                mixed_strong,
                overlay(mixed_strong, st.label_st[i].cpu().numpy(), classes),
                mixed_hts,
                overlay(mixed_hts, hts.label_hts[i].cpu().numpy(), classes),
            ]
        )
    return grid(columns, rows, classes)


def _unknown(target: DomainBatch) -> PseudoLabels:
    label = torch.full(target.weak.shape[:3], IGNORE_INDEX, dtype=torch.uint8, device=target.weak.device)
    return PseudoLabels(label, torch.zeros_like(label, dtype=torch.float32), label)


def _over(image: Tensor, label: Tensor, classes: ClassSet) -> NDArray[np.uint8]:
    return overlay(image.cpu().numpy(), label.cpu().numpy(), classes)


def _pixels(image: Tensor, normalisation: Normalisation) -> NDArray[np.uint8]:
    """Network input [3, H, W] back to uint8 RGB [H, W, 3]."""
    scale = image.new_tensor(normalisation.scale)
    mean = image.new_tensor(normalisation.mean)
    values = image.permute(1, 2, 0) / scale + mean
    if normalisation.bgr:
        values = values.flip(-1)
    return values.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
