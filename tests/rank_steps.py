"""Iterations of one rank's share of a batch, in float64, and of all shares in one process."""

from __future__ import annotations

import copy
from typing import Any

import torch
from steps import begin, tiny
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.distributed.ranks import Ranks
from fastuda.method.contrast import pixel_loss, prototype_loss
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.grouped_batch_norm import synchronise
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Contrast, Recipe
from fastuda_kernels.masked_mix import Normalisation

PASSES = Passes(Normalisation(mean=(100.0, 110.0, 120.0), scale=(0.01, 0.02, 0.015), bgr=False), None)
CROP, VIEW = (16, 16), (24, 40)
NUM_ITERATIONS = 10
A_RANK = 2
"""Images a domain, an iteration and a rank."""


class Doubled(DeepLabV2):
    """Computes in float64, whatever images come as."""

    def forward(self, images: Tensor, *, features: bool = False) -> Outputs:
        return super().forward(images.double(), features=features)


def recipe_of(*settings: str) -> Recipe:
    return tiny("gta2cs", f"train.batch_size={A_RANK}", "method.tau=0.06", *settings)


def whole_batch(recipe: Recipe, iteration: int, num_images: int) -> tuple[DomainBatch, DomainBatch]:
    """Random images of both domains, every pixel labelled: losses are then means over equal numbers on every rank."""
    generator = torch.Generator().manual_seed(iteration)
    num_classes = len(recipe.classes.build())

    def image(size: tuple[int, int]) -> Tensor:
        return torch.randint(0, 256, (num_images, *size, 3), dtype=torch.uint8, generator=generator)

    def label(size: tuple[int, int]) -> Tensor:
        return torch.randint(0, num_classes, (num_images, *size), dtype=torch.uint8, generator=generator)

    boxes = torch.tensor([[4.0, 20.0, 16.0, 16.0]]).repeat(num_images, 1)
    keys = torch.rand(num_images, num_classes, generator=generator)
    names = [str(i) for i in range(num_images)]
    source = DomainBatch(image(VIEW), label(VIEW), image(CROP), image(CROP), label(CROP), boxes, keys, names)
    target = DomainBatch(image(VIEW), None, image(CROP), image(CROP), None, boxes, keys, names)
    return source, target


def share(batch: DomainBatch, rank: int) -> DomainBatch:
    """A rank's images of a batch of all."""
    mine = slice(rank * A_RANK, (rank + 1) * A_RANK)
    return batch.map(lambda tensor: tensor[mine])._replace(names=batch.names[mine])


def fresh(recipe: Recipe, ranks: Ranks | None = None, *, flat: bool = False) -> TrainingState:
    """A state in float64, its classifiers not alike everywhere; synchronised where the recipe says so."""
    student = begin(recipe, Doubled).student.double()
    torch.manual_seed(1)
    for branch in student.head.branches:
        torch.nn.init.normal_(branch.weight, std=0.05)  # type: ignore[arg-type]
    if recipe.distributed.sync_batch_norm:
        assert synchronise(student) == []
    more: dict[str, Any] = {} if ranks is None else {"ranks": ranks, "distributed": recipe.distributed}
    return TrainingState.begin(student.train(), recipe.train.optimizer, NUM_ITERATIONS, 0.9, flat=flat, **more)


def trained(
    state: TrainingState, recipe: Recipe, size: int, rank: int | None, work: str = "adaptation"
) -> list[dict[str, Any]]:
    """Losses, gradients and all that changed, by iteration; of a rank's share, or of the whole batch without one."""
    history = []
    for iteration in range(NUM_ITERATIONS):
        source, target = whole_batch(recipe, iteration, size * A_RANK)
        if rank is not None:
            source, target = share(source, rank), share(target, rank)
        seen: list[Tensor] = []
        finish = state.step_optimizer

        def noted(finish: Any = finish, seen: list[Tensor] = seen) -> None:
            seen.extend(one.grad.clone() for one in state.student.parameters() if one.grad is not None)
            finish()

        state.step_optimizer = noted  # type: ignore[method-assign]
        if work == "adaptation":
            losses = adaptation_step(state, source, target, recipe, PASSES)
        else:
            losses = warmup_step(state, source, recipe, PASSES)
        state.step_optimizer = finish  # type: ignore[method-assign]
        history.append(
            {
                "losses": {name: float(loss) for name, loss in losses.items()},
                "gradients": seen,
                "student": {name: value.clone() for name, value in state.student.state_dict().items()},
                "tensors": [tensor.clone() for tensor in state.tensors()],
            }
        )
    return history


def on_ranks(ranks: Ranks, recipe: Recipe, work: str, flat: bool) -> list[dict[str, Any]]:
    """What a rank has of its share."""
    return trained(fresh(recipe, ranks, flat=flat), recipe, ranks.size, ranks.rank, work)


def recomputed(recipe: Recipe, size: int) -> list[dict[str, Any]]:
    """Ranks with BatchNorm of their own, written again without ranks: shares one after another, their means by hand."""
    state = fresh(recipe)
    history = []
    for iteration in range(NUM_ITERATIONS):
        source, target = whole_batch(recipe, iteration, size * A_RANK)
        gradients: list[list[Tensor]] = []
        moved: list[list[Tensor]] = []
        for rank in range(size):
            own = copy.deepcopy(state)
            own.step_optimizer = lambda: None  # type: ignore[method-assign]
            adaptation_step(own, share(source, rank), share(target, rank), recipe, PASSES)
            gradients.append([one.grad for one in own.student.parameters() if one.grad is not None])
            moved.append([*own.student.buffers()])
        state.begin_iteration()
        with torch.no_grad():
            of_parameters = [one for one in state.student.parameters() if one.requires_grad]
            for parameter, *found in zip(of_parameters, *gradients, strict=True):
                parameter.grad = torch.stack(found).mean(0)
            for buffer, *now in zip(state.student.buffers(), *moved, strict=True):
                buffer.copy_(torch.stack(now).double().mean(0))
        noted = [one.grad.clone() for one in of_parameters if one.grad is not None]
        state.step_optimizer()
        state.finish_iteration(torch.zeros(()))
        student = {name: value.clone() for name, value in state.student.state_dict().items()}
        history.append({"gradients": noted, "student": student})
    return history


def several_on_ranks(ranks: Ranks, cases: dict[str, tuple[Recipe, str, bool]]) -> dict[str, list[dict[str, Any]]]:
    """`on_ranks` of several recipes, one after another."""
    return {name: on_ranks(ranks, *case) for name, case in cases.items()}


def contrast_on_rank(
    ranks: Ranks, first: Tensor, second: Tensor, labels: Tensor, settings: Contrast
) -> tuple[float, list[Tensor]]:
    """PiCL + ProCL with the other ranks' negatives, of one image a rank, and what is added to this rank's gradients."""
    own = slice(ranks.rank, ranks.rank + 1)
    views = [one[own].clone().requires_grad_() for one in (first, second)]
    loss = pixel_loss(*views, settings.pixel_scale, gathered=True)
    loss = loss + prototype_loss(*views, labels[own], settings, gathered=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), [one.grad for one in views if one.grad is not None]
