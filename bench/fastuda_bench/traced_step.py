"""An iteration as the GPU would run it, traced on a CPU and counted: no kernel runs and no tensor has values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.aot_autograd import aot_function
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.utils._pytree import tree_flatten, tree_unflatten

from fastuda.data.loading.made import made_batches
from fastuda.method.reference import blank_reference
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.model.place import placed
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath
from fastuda_bench.eager_tally import EagerTally
from fastuda_bench.scheduled import scheduled
from fastuda_bench.supposed_gpu import DEVICE, MULTIPROCESSORS, suppose_triton
from fastuda_bench.tally import Tally
from fastuda_kernels.tracing import launches_known_by_kind

_CHOOSING = ("batch_norm", "masked_mix", "pixel_contrast", "pseudo_label", "upsample_cross_entropy")


def traced_step(recipe: Recipe) -> Tally:
    """Launches and bytes of one adaptation iteration on a GPU, from the second iteration on.

    Functions that would be compiled are traced, forward and backward, and counted by the compiler's own
    scheduler; what runs between them is counted operation by operation, a backward pass's accumulation
    of gradients included. Tensors are fake ones of a CPU, which autograd can work on without a GPU, and
    each traced graph is moved to one before it is lowered. Autocast is therefore a CPU's, which treats the
    network's operations as a GPU's does. Enter it in a process of its own.
    """
    cpu = torch.device("cpu")
    with _kernels_chosen():
        fast = FastPath.of(recipe.runtime, DEVICE)
        passes = replace(Passes.of(recipe, DEVICE), compiled=fast.compiled)
        model = placed(build_network(recipe), fast, cpu).train()
        settings, decay = recipe.train.optimizer, recipe.method.ema_decay
        state = TrainingState.begin(
            model,
            settings,
            recipe.train.iterations,
            decay,
            ema_rises=recipe.method.ema_rises,
            flat=fast.flat_update,
            precision=fast.amp,
            reference=blank_reference(recipe),
        )
        batches = [batch.map(torch.empty_like) for batch in made_batches(recipe, cpu)]
        counted = EagerTally(_kernels_of)
        compiled = partial(_Traced, counted)
        with patch("fastuda.model.passes.compiled", compiled), FakeTensorMode(allow_non_fake_inputs=True), counted:
            adaptation_step(state, batches[0], batches[1], recipe, passes)
    return counted.total


class _Traced:
    """A function in the place of its compiled form: each call is traced, counted and run on fake tensors."""

    def __init__(self, counted: EagerTally, function: Callable[..., Any]) -> None:
        self._counted = counted
        self._function = function

    def __call__(self, *args: Any) -> Any:
        models = [one for one in args if isinstance(one, nn.Module)]
        tensors = [dict([*model.named_parameters(), *model.named_buffers()]) for model in models]
        leaves, structure = tree_flatten((tensors, [one for one in args if not isinstance(one, nn.Module)]))
        distinct = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}

        def flat(*given: Tensor) -> Any:
            by_id = dict(zip(distinct, given, strict=True))
            of_models, rest = tree_unflatten([by_id.get(id(leaf), leaf) for leaf in leaves], structure)
            if not models:
                return self._function(*rest)
            return torch.func.functional_call(models[0], of_models[0], tuple(rest))

        with self._counted.paused():
            return _aot(flat, self._compiler)(*distinct.values())

    def _compiler(self, traced: GraphModule, inputs: list[Any], **kind: bool) -> Callable[..., Any]:
        """Count the graph, and hand back what runs it on fakes."""
        with self._counted.paused():
            self._counted.total.add(scheduled(traced, inputs, **kind))

        def run(*values: Any) -> Any:
            with self._counted.paused():
                return traced(*values)

        return make_boxed_func(run)


def _aot(function: Callable[..., Any], compiler: Callable[..., Any]) -> Callable[..., Any]:
    """The function as AOTAutograd traces it for torch's compiler: its decompositions, partition and mutations."""
    return aot_function(
        function,
        fw_compiler=compiler,
        bw_compiler=partial(compiler, backward=True),
        inference_compiler=partial(compiler, inference=True),
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
        keep_inference_input_mutations=True,
    )


def _kernels_of(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tally:
    """Of one of fastuda's operators that is called outside compiled code."""
    found = Tally()

    def compiler(traced: GraphModule, inputs: list[Any], **kind: bool) -> Callable[..., Any]:
        found.add(scheduled(traced, inputs, **kind))
        return make_boxed_func(traced.forward)

    leaves, structure = tree_flatten((args, kwargs))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def flat(*given: Tensor) -> Any:
        whole = list(leaves)
        for place, tensor in zip(places, given, strict=True):
            whole[place] = tensor
        own_args, own_kwargs = tree_unflatten(whole, structure)
        return operator(*own_args, **own_kwargs)

    with torch.no_grad():
        _aot(flat, compiler)(*(leaves[place] for place in places))
    return found


@contextmanager
def _kernels_chosen() -> Iterator[None]:
    """While entered, operations on a CPU's tensors take the way they take on a GPU."""
    suppose_triton()
    with ExitStack() as stack:
        for name in _CHOOSING:
            stack.enter_context(patch(f"fastuda_kernels.{name}.runs_triton", lambda one: one.dtype != torch.float64))
        for name in ("batch_norm", "pixel_contrast"):
            stack.enter_context(patch(f"fastuda_kernels.{name}.triton.num_multiprocessors", lambda _: MULTIPROCESSORS))
        stack.enter_context(patch.object(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True))
        stack.enter_context(launches_known_by_kind())
        yield
