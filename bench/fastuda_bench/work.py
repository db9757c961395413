"""What an iteration cannot do without: its floating-point operations and bytes, counted without running it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from fastuda.data.loading.made import made_batches
from fastuda.method.reference import blank_reference
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath
from fastuda_bench.ladder import RUNGS, recipe_at
from fastuda_bench.limits import Limits, Work
from fastuda_bench.plain_operations import plain_operations

_FORWARD_PASSES, _BACKWARD_PASSES = 3, 7
"""Of a BatchNorm and its ReLU over their tensor: x read twice, y written; dy, x, y read twice, dx written."""


@dataclass(frozen=True)
class Counted:
    """One adaptation iteration, counted."""

    work: Work
    """Of the plainest rung's step, `bytes` those of unfused operations."""
    layers: tuple[tuple[float, float, int], ...]
    """(floating-point operations, bytes, how often) of the network's operations at the recipe's AMP precision."""

    def roofline_ms(self, limits: Limits) -> float:
        """The sum of each layer's shortest time: its operations or its bytes, whichever takes longer."""
        seconds = sum(
            count * max(flops / limits.convolution, moved / limits.bytes) for flops, moved, count in self.layers
        )
        return 1000 * seconds

    def to_json(self) -> dict[str, Any]:
        """For a results file."""
        return {"work": vars(self.work), "layers": [list(layer) for layer in self.layers]}

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> Counted:
        """What `to_json` wrote. Raises KeyError for anything else."""
        layers = tuple((float(flops), float(moved), int(count)) for flops, moved, count in content["layers"])
        return cls(Work(**content["work"]), layers)


def counted(recipe: Recipe, device: torch.device) -> Counted:
    """An iteration's work and its layers, counted where the step sets out: `eager-fp32`'s operations."""
    amp = FastPath.of(recipe.runtime, device).amp or torch.float32
    with plain_operations():
        return _counted(recipe_at(recipe, RUNGS[0]), device, amp.itemsize)


def iteration_work(recipe: Recipe, device: torch.device) -> Work:
    """Work of one adaptation iteration, in the precision that the recipe has on `device`.

    `flops` are those of convolutions and matrix products (2 × multiply-add), forward and backward, as torch counts
    them, but for the gradients of grouped convolutions, where it counts ungrouped ones. `bytes` are what the
    operations of the eager step read and write, each tensor once an operation: fused code needs less, so the true
    intensity lies above flops / bytes.
    """
    return _counted(recipe, device, 4).work


def roofline_ms(recipe: Recipe, limits: Limits, device: torch.device) -> float:
    """Milliseconds below which no iteration gets whose BatchNorms are kernels of their own, on a device of `limits`.

    Counted is the network, layer by layer, each at the slower of its operations and its bytes: convolutions
    forward, and backward for data and for weights, at the rate of `limits.convolution`, the classifiers' branches
    reading their features once together; BatchNorm with ReLU as 3
    passes over its tensor forward (x read twice, y written; 2 where it uses running statistics) and 7 backward
    (dy, x, y read for the reduction, dy, x, y read and dx written); a residual sum as one more read forward and
    one more write backward. Elements have the size of the recipe's AMP type. Left out: max-pool, losses,
    pseudo-labels, mixing, optimiser, average, casts of weights.
    """
    return counted(recipe, device).roofline_ms(limits)


def _counted(recipe: Recipe, device: torch.device, itemsize: int) -> Counted:
    # Grouped passes spell BatchNorm out, for the compiler to fuse: run eagerly they would count many times over.
    cpu, passes = torch.device("cpu"), replace(Passes.of(recipe, device), grouped=False)
    with torch.random.fork_rng([]):
        model = build_network(recipe).train()
    train, reference = recipe.train, blank_reference(recipe)
    state = TrainingState.begin(model, train.optimizer, train.iterations, recipe.method.ema_decay, reference=reference)
    batches = made_batches(recipe, cpu)
    flops = FlopCounterMode(display=False, custom_mapping=GRADIENTS)
    with FakeTensorMode(allow_non_fake_inputs=True), _Traffic(itemsize, model) as traffic, flops:
        adaptation_step(state, *batches, recipe, passes)
    layers = tuple((flop, moved, count) for (flop, moved), count in sorted(traffic.layers.items()))
    return Counted(Work(bytes=float(traffic.bytes), flops=float(flops.get_total_flops())), layers)


def _gradients(
    grad_out_shape: Sequence[int],
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    output_mask: Sequence[bool],
    out_shape: object = None,
) -> int:
    """Of a convolution's backward pass: as many as of its forward pass for either gradient that is wanted.

    Weights are [out, in / groups, …] forward, [in, out / groups, …] transposed, so their elements meet each position
    of the side that their first dimension is of once.
    """
    positions = math.prod((x_shape if transposed else grad_out_shape)[2:]) * grad_out_shape[0]
    return 2 * positions * math.prod(w_shape) * (output_mask[0] + output_mask[1])


GRADIENTS = {torch.ops.aten.convolution_backward: _gradients}
"""For torch's counter of operations, in place of its own formula."""


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of every operation's arguments and results, but for views, which move nothing.

    `layers` counts the network's own operations by (floating-point operations, bytes at `itemsize` an element).
    """

    def __init__(self, itemsize: int, model: Segmenter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: int = 0
        self.layers: Counter[tuple[float, float]] = Counter()
        self._itemsize = itemsize
        self._num_classes, self._num_branches = model.num_classes, model.num_branches
        self._normalised: Tensor | None = None
        """What the last operation gave, if that was a BatchNorm: a sum with it is a residual block's."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = [one for one in tree_iter(result) if isinstance(one, Tensor)]
        if results and not func.is_view:
            arguments = [one for one in tree_iter((args, kwargs)) if isinstance(one, Tensor)]
            self.bytes += sum(one.numel() * one.element_size() for one in (*arguments, *results))
            self._layer(func.overloadpacket.__name__, args, results)
        return result

    def _layer(self, name: str, args: Any, results: list[Tensor]) -> None:
        before, self._normalised = self._normalised, None
        if name == "convolution":
            self._convolution(args[0], args[1], results[0])
        elif name == "convolution_backward":
            for needed in args[10][:2]:  # the data's gradient and the weights': as many operations each as forward
                if needed:
                    self._convolution(args[1], args[2], args[0])
        elif name.endswith("batch_norm_backward"):
            self._passes(args[0], _BACKWARD_PASSES)
        elif "batch_norm" in name:
            trains = args[5]
            self._passes(args[0], _FORWARD_PASSES if trains else _FORWARD_PASSES - 1)
            self._normalised = results[0]
        elif name == "add" and any(one is before for one in args if isinstance(one, Tensor)):
            self._passes(results[0], 2 if torch.is_grad_enabled() else 1)

    def _convolution(self, data: Tensor, weight: Tensor, out: Tensor) -> None:
        flops = 2.0 * out.numel() * weight.numel() / weight.shape[0]
        readers = self._num_branches if weight.shape[0] == self._num_classes else 1
        moved = self._itemsize * (data.numel() / readers + weight.numel() + out.numel())
        self.layers[flops, moved] += 1

    def _passes(self, tensor: Tensor, count: int) -> None:
        self.layers[0.0, float(self._itemsize * count * tensor.numel())] += 1
