"""How much memory an iteration or an evaluation needs, found without running it, and whether it is there."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from fastuda.data.loading.made import made_batches
from fastuda.errors import FastudaError
from fastuda.method.reference import blank_reference
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.model.build import build_network
from fastuda.model.inference import evaluation_logits
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath

T = TypeVar("T")
TrainingWork = Literal["adaptation", "warm-up"]
"""Which step trains: the adaptation's, which reads the target too, or the warm-up's, of the source alone."""
_RUNTIME_BYTES = 2**31
"""CUDA's context, cuDNN's workspaces, DALI's buffers, an evaluation beside the graph: not an iteration's own."""
_FRAGMENTATION = 1.05
_APART = {"description", "seed", "source", "target", "data"}
"""Of a recipe what no iteration's memory depends on."""
_estimates: dict[tuple[str, str], int] = {}
"""Of this process, by device and the rest of the recipe: a study's seeds are estimated once."""


def estimate_bytes(
    recipe: Recipe,
    device: torch.device,
    work: TrainingWork = "adaptation",
    *,
    look: Callable[[], None] | None = None,
) -> int:
    """Peak bytes of an iteration of `work` on `device`: weights, optimiser, average, activations, gradients.

    One iteration runs on tensors without memory, and the bytes alive at once are counted. The count is of the
    iteration as it is written; compiled code needs less, libraries' own workspaces come on top.

    That takes seconds: `look` is called with every operation, forward and backward, and what it raises ends the count.
    """
    train, passes, live = recipe.train, Passes.of(recipe, device), _LiveBytes()
    model, reference = _network(recipe, device).train(), blank_reference(recipe)
    state = TrainingState.begin(model, train.optimizer, train.iterations, recipe.method.ema_decay, reference=reference)
    networks = [one for one in (state.student, state.ema, state.reference) if one is not None]
    state = live.taken(state, [*state.remembered, *(tensor for one in networks for tensor in _tensors(one))])
    batches = made_batches(recipe, torch.device("cpu"))
    source, target = live.taken(batches, [one for batch in batches for one in batch if isinstance(one, Tensor)])
    with live.fake, live, _Looking(look) if look else nullcontext():
        if work == "adaptation":
            adaptation_step(state, source, target, recipe, passes)
        else:
            warmup_step(state, source, recipe, passes)
    return live.peak


def estimate_evaluation_bytes(recipe: Recipe, device: torch.device, batch_size: int) -> int:
    """Peak bytes of the network's answer to `batch_size` images of `eval.size`, weights included, as counted above."""
    (width, height), live = recipe.eval.size, _LiveBytes()
    network = _network(recipe, device).eval()
    model = live.taken(network, _tensors(network))
    with live.fake, live:
        images = torch.zeros(batch_size, height, width, 3, dtype=torch.uint8)
        evaluation_logits(model, images, recipe.eval, Passes.of(recipe, device))
    return live.peak


def _network(recipe: Recipe, device: torch.device) -> Segmenter:
    """The recipe's network with BatchNorm as torch computes it, whose operations the count is of."""
    with torch.random.fork_rng([]):
        model = build_network(recipe)
    model.follow(replace(FastPath.of(recipe.runtime, device), fused_batch_norm=False))
    return model


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def needed_bytes(estimated: int, device: torch.device) -> float:
    """What an iteration takes of free memory: the estimate, what fragments leave unused, and the runtime's own."""
    return _FRAGMENTATION * estimated + (_RUNTIME_BYTES if device.type == "cuda" else 0)


def require_memory(recipe: Recipe, device: torch.device, look: Callable[[], None] | None = None) -> None:
    """Raise FastudaError, with the estimate and what to lower, when an iteration does not fit into free memory.

    `look` is called again and again meanwhile, and may raise to end it.
    """
    free = _free_bytes(device)
    if free is None:
        return
    key = (str(device), recipe.model_dump_json(exclude=_APART))
    if key not in _estimates:
        _estimates[key] = estimate_bytes(recipe, device, look=look)
    needed = needed_bytes(_estimates[key], device)
    if needed <= free:
        return
    views, train = recipe.views, recipe.train
    where = "the GPU's" if device.type == "cuda" else "this machine's"
    crops = ", or train on crops alone (--set views.whole=false)" if views.whole else ""
    raise FastudaError(
        f"an iteration needs about {needed / 2**30:.1f} GiB and {where} free memory is {free / 2**30:.1f} GiB: "
        f"lower train.batch_size ({train.batch_size}), views.crop_size {list(views.crop_size)}, views.source_size "
        f"{list(views.source_size)} or views.target_size {list(views.target_size)}{crops}"
    )


class _Looking(TorchFunctionMode):
    """Calls `look` after every operation, and whenever the gradient of its result is there.

    A dispatch mode is no place for it: C++ calls that from where an exception ends the process.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()
        self._look = look

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):  # what sets a mode back has no result
            self._look()
            if result.requires_grad:
                result.register_hook(self._looked)  # type: ignore[no-untyped-call]
        return result

    def _looked(self, _gradient: Tensor) -> None:
        self._look()


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that are alive, and the most there ever were.

    Entered within `fake`, the mode in which tensors have none.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.peak: int = 0
        self._now = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def taken(self, whole: T, tensors: list[Tensor]) -> T:
        """A copy in which `tensors` are fake ones, counted: else each operation would make them of the real ones."""
        copies = {id(tensor): self.fake.from_tensor(tensor) for tensor in tensors}
        for copy in copies.values():
            self._count(copy.untyped_storage())
        return deepcopy(whole, copies)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._freed, size).atexit = False

    def _freed(self, size: int) -> None:
        self._now -= size


def _free_bytes(device: torch.device) -> int | None:
    """Bytes that a process can still have; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = next((line for line in lines if line.startswith("MemAvailable")), None)
    return None if available is None else int(available.split()[1]) * 1024
