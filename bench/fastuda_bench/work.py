"""What an iteration cannot do without: its floating-point operations and bytes, counted without running it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from fastuda.data.made import made_batches
from fastuda.method.network import Passes
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step
from fastuda.model.build import build_network
from fastuda.recipe import Recipe
from fastuda_bench.limits import Work


def iteration_work(recipe: Recipe, device: torch.device) -> Work:
    """Work of one adaptation iteration, in the precision that the recipe has on `device`.

    `flops` are those of convolutions and matrix products (2 × multiply-add), forward and backward, as torch
    counts them. `bytes` are what the operations of the eager step read and write, each tensor once an
    operation: fused code needs less, so the true intensity lies above flops / bytes.
    """
    # Grouped passes spell BatchNorm out, for the compiler to fuse: run eagerly they would count many times over.
    cpu, passes = torch.device("cpu"), replace(Passes.of(recipe, device), grouped=False)
    with torch.random.fork_rng([]):
        model = build_network(recipe).train()
    state = TrainingState.begin(model, recipe.train.optimizer, recipe.train.iterations, recipe.method.ema_decay)
    batches = made_batches(recipe, cpu)
    flops = FlopCounterMode(display=False)
    with FakeTensorMode(allow_non_fake_inputs=True), _Traffic() as traffic, flops:
        adaptation_step(state, *batches, recipe, passes)
    return Work(bytes=float(traffic.bytes), flops=float(flops.get_total_flops()))


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of every operation's arguments and results, but for views, which move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = [one for one in tree_iter(result) if isinstance(one, Tensor)]
        if results and not func.is_view:
            arguments = [one for one in tree_iter((args, kwargs)) if isinstance(one, Tensor)]
            self.bytes += sum(one.numel() * one.element_size() for one in (*arguments, *results))
        return result
