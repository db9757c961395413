"""What an iteration's end does to flat weights: SGD's or AdamW's rule, clipping, the average, the copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor

from fastuda.method.average import Average
from fastuda.method.flat_update import Part
from fastuda.recipe import AdamW, Optimizer, Sgd


def move(parts: Sequence[Part], settings: Optimizer, average: Average, iteration: Tensor) -> None:
    """The optimiser's update (protocol row 21), the average after it (row 4), the copies; in place.

    `iteration`, int64 scalar, counts finished ones.
    """
    moved = average.moves(iteration)
    factor = None if settings.clip_norm is None else _shortening(map(_summed, parts), settings.clip_norm)
    for part in parts:  # whose gradients are summed one part after another, so that no two sums are there at once
        gradient = _summed(part) if factor is None else _summed(part) * factor
        if isinstance(settings, AdamW):
            _adamw(part, gradient, settings, iteration)
        else:
            assert isinstance(settings, Sgd)
            _sgd(part, gradient, settings, iteration)
        part.average.lerp_(part.weight, moved.to(part.weight.dtype) if isinstance(moved, Tensor) else moved)
        if part.copies is not None:
            part.copies.copy_(part.weight)


def _sgd(part: Part, gradient: Tensor, settings: Sgd, iteration: Tensor) -> None:
    """SGD with momentum and decay, repeated as the list says; the first iteration has no momentum (`RepeatedSGD`)."""
    velocity = part.memory["momentum_buffer"]
    for update in range(part.updates):
        kept = settings.momentum if update == 0 else settings.momentum * (iteration > 0).to(part.weight.dtype)
        decayed = gradient + settings.weight_decay * part.weight if part.decays else gradient
        velocity.mul_(kept).add_(decayed)
        part.weight.sub_(part.rate * velocity)


def _adamw(part: Part, gradient: Tensor, settings: AdamW, iteration: Tensor) -> None:
    """AdamW (Loshchilov and Hutter, 2019) as torch computes it; a parameter's updates are the stage's iterations."""
    assert part.step is not None
    step = (iteration + 1).double()  # 1 − 0.999 has few digits left in float32
    part.step.copy_(step)
    first, second = settings.betas
    mean, square = part.memory["exp_avg"], part.memory["exp_avg_sq"]
    if part.decays:
        part.weight.mul_(1 - part.rate * settings.weight_decay)
    mean.lerp_(gradient, 1 - first)
    square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
    spread = square.sqrt() / (1 - torch.pow(second, step)).sqrt() + settings.eps
    part.weight.sub_(part.rate / (1 - torch.pow(first, step)) * (mean / spread))


def _summed(part: Part) -> Tensor:
    first, *others = (gradient.to(part.weight.dtype) for gradient in part.gradients)
    return reduce(torch.add, others, first)


def _shortening(gradients: Iterable[Tensor], most: float) -> Tensor:
    """The factor that `torch.nn.utils.clip_grad_norm_` has for gradients whose norm together may be `most`."""
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    return (most / (norm + 1e-6)).clamp(max=1)
