"""The paper's run, to compare a pace with: only where the same work is done."""

from __future__ import annotations

from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe

PAPER_ITERATIONS = 250_000
PAPER_HOURS = 63
"""On one RTX 3090 (paper table 7)."""


def same_work(recipe: Recipe) -> bool:
    """Whether an iteration of `recipe` is the paper's in what it computes, and their number the paper's too.

    That is one of its pairs, network, sizes, batch and length, with every loss of the method. What a variant adds
    or labels otherwise does not matter.
    """
    paper = load_recipe("gta2cs")
    pair = (recipe.source.layout, recipe.target.layout) in (("gta5", "cityscapes"), ("synthia", "cityscapes"))
    sizes = all(
        getattr(recipe.views, name) == getattr(paper.views, name)
        for name in ("source_size", "target_size", "crop_size", "whole")
    )
    network = recipe.model.scale() == paper.model.scale()
    length = (recipe.train.batch_size, recipe.train.iterations) == (paper.train.batch_size, PAPER_ITERATIONS)
    losses = recipe.mix.enabled and recipe.htcm.enabled and recipe.contrast.pixel and recipe.contrast.prototype
    return pair and sizes and network and length and losses
