"""The state that a measurement begins from."""

from __future__ import annotations

import torch

from fastuda.distributed.ranks import ALONE, Ranks
from fastuda.method.reference import blank_reference
from fastuda.method.state import TrainingState
from fastuda.model.build import build_network
from fastuda.model.grouped_batch_norm import synchronise
from fastuda.model.place import placed
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath


def begun(
    recipe: Recipe, fast: FastPath, device: torch.device, num_iterations: int | None = None, ranks: Ranks = ALONE
) -> TrainingState:
    """A fresh adaptation on `device`, laid out as the fast path has it, of the random network that the seed gives.

    The learning rate falls over `num_iterations`, the recipe's own by default; `ranks` train together, as the recipe
    has it. Two calls give the same bits.
    """
    reference = blank_reference(recipe)
    torch.manual_seed(recipe.seed)
    network = placed(build_network(recipe), fast, device).train()
    if recipe.distributed.sync_batch_norm and not ranks.alone:
        synchronise(network)
    return TrainingState.begin(
        network,
        recipe.train.optimizer,
        num_iterations or recipe.train.iterations,
        recipe.method.ema_decay,
        ema_rises=recipe.method.ema_rises,
        scaled=fast.scaled,
        flat=fast.flat_update,
        precision=fast.amp,
        reference=None if reference is None else placed(reference, fast, device),
        ranks=ranks,
        distributed=recipe.distributed,
    )
