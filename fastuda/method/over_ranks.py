"""An iteration's gradients, losses and running statistics as those of all ranks, so that all go on with one state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from fastuda.distributed.gradients import Averaging
from fastuda.distributed.ranks import Ranks
from fastuda.model.passes import batch_norm_layers
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Distributed


class Gradients(Protocol):
    """Where backward passes leave their gradients."""

    def latest(self) -> list[Tensor]:
        """Those of the last backward pass alone, to be averaged in place; the next pass must not add to them."""

    def sums(self) -> list[Tensor]:
        """Those of all passes together, summed, to be averaged in place."""

    def put_together(self) -> None:
        """Make of passes that were averaged apart what the optimiser reads."""


class OverRanks:
    """Makes an iteration of this rank's images one of all ranks' images.

    Gradients and losses become their means over the ranks, which is what one process has of the whole batch where its
    losses are means over as many pixels on each rank. Running statistics move by the mean of what the ranks move them,
    so that every rank has the same ones, and a checkpoint of one holds what all need.
    """

    def __init__(self, student: Segmenter, gradients: Gradients, ranks: Ranks, settings: Distributed) -> None:
        self._gradients = gradients
        self._ranks = ranks
        self._overlap = settings.overlap
        self._averaging = Averaging(ranks, torch.bfloat16 if settings.gradients == "bf16" else None)
        self._whole = Averaging(ranks)
        layers = batch_norm_layers(student)
        self._statistics = [
            one for layer in layers for one in (layer.running_mean, layer.running_var) if isinstance(one, Tensor)
        ]
        self._before: list[Tensor] = []
        self._silent = False

    @torch.no_grad()
    def begin_iteration(self) -> None:
        """Remember what the statistics are moved from."""
        self._before = [one.clone() for one in self._statistics]

    def after_backward(self) -> None:
        """With `distributed.overlap`, send the pass's gradients on their way."""
        if self._overlap and not self._silent:
            self._averaging.begin(self._gradients.latest())

    @torch.no_grad()
    def end_iteration(self) -> None:
        """Let gradients and running statistics be those of all ranks."""
        if self._silent:
            return
        if not self._overlap:
            self._averaging.begin(self._gradients.sums())
        # What is not moved stays to the last bit: the mean of three equal numbers need not be that number.
        moved = [now - before for now, before in zip(self._statistics, self._before, strict=True)]
        self._whole.begin(moved)
        self._averaging.end()
        self._whole.end()
        if self._overlap:
            self._gradients.put_together()
        for now, before, step in zip(self._statistics, self._before, moved, strict=True):
            now.data.copy_(before + step)
        self._before = []

    @torch.no_grad()
    def mean(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalar losses, each the mean over the ranks; one that is not finite anywhere is so everywhere."""
        if self._silent:
            return dict(losses)
        values = torch.stack([loss.double() for loss in losses.values()])
        self._whole.begin([values])
        self._whole.end()
        means = (value.to(loss.dtype) for value, loss in zip(values, losses.values(), strict=True))
        return dict(zip(losses, means, strict=True))

    @contextmanager
    def silent(self) -> Iterator[None]:
        """While entered nothing is averaged: for iterations that leave no trace, and may fail on one rank alone."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def forget(self) -> None:
        """Leave what an interrupted iteration had begun."""
        self._averaging.forget()
        self._whole.forget()
