"""The recipe's table of several ranks: what they share of statistics, negatives, gradients and rates."""

from __future__ import annotations

from typing import ClassVar, Literal

from fastuda.recipe.section import Section


class Distributed(Section):
    """What several ranks share beside their gradients; a single process is none the wiser."""

    of_warmup: ClassVar[tuple[str, ...] | None] = ("sync_batch_norm", "gradients", "lr_scaling")

    sync_batch_norm: bool = False
    """BatchNorm over the images of all ranks, a view at a time; otherwise each rank normalises by its own images, as
    in the paper's batch of two, and the running statistics are the mean over the ranks."""
    gather_negatives: bool = False
    """PiCL and ProCL also take the rows of the other ranks' images as negatives, in memory that grows with the number
    of rows alone; otherwise each image is contrasted with itself, as in the paper."""
    gradients: Literal["fp32", "bf16"] = "fp32"
    """Type in which gradients are summed over the ranks; `bf16` halves what goes over the links, and rounds."""
    overlap: bool = False
    """Send the gradients of each backward pass while the next passes run, which doubles the bytes; otherwise all at
    once where the optimiser steps."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """Factor on all learning rates for the larger global batch: none, the number of ranks, or its root."""

    def rate_factor(self, num_ranks: int) -> float:
        """On every learning rate, with so many ranks."""
        powers = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
        return float(num_ranks ** powers[self.lr_scaling])
