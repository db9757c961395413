"""The ladder from the step as one would type it to fastuda's: what each rung adds, and an iteration of it to time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from fastuda.data.loading.batch import DomainBatch
from fastuda.errors import UsageError
from fastuda.method.state import TrainingState
from fastuda.method.term import Losses
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.runtime import compiled
from fastuda.runtime.fast_path import FastPath
from fastuda.runtime.switches import configure
from fastuda.training.iteration import Iteration, Way
from fastuda_bench.begun import begun
from fastuda_bench.plain_operations import plain_operations

_PLAIN: dict[str, Any] = {
    "amp": "none",
    "tf32": True,
    "channels_last": False,
    "grouped": False,
    "gemm_aspp": False,
    "fused_batch_norm": False,
    "flat_update": False,
    "compile": False,
    "cuda_graph": False,
}


@dataclass(frozen=True)
class Rung:
    """One way to run the iteration."""

    name: str
    adds: str
    """What it has that the rung below has not."""
    runtime: dict[str, Any] = field(default_factory=dict)
    """The recipe's switches that it turns on, beyond those of the rungs below."""
    plain: bool = False
    """Whether losses and pseudo-labels are the formulas one would type."""


RUNGS = (
    Rung("eager-fp32", "NCHW, TF32 convolutions, dense contrast, upsampled cross-entropy, one pass a view", plain=True),
    Rung("amp-nhwc", "autocast and channels-last", {"amp": "auto", "channels_last": True}, plain=True),
    Rung("compile", "torch.compile of network and losses", {"compile": True}, plain=True),
    Rung("grouped", "the mixed views in one pass, BatchNorm statistics a view", {"grouped": True}, plain=True),
    Rung("fused", "fastuda's kernels for contrast, cross-entropy, pseudo-labels and mixing"),
    Rung("gemm-aspp", "the classifiers as one product and shifted sums", {"gemm_aspp": True}),
    Rung("graph", "the whole iteration in one CUDA graph", {"cuda_graph": True}),
    Rung("flat-update", "weights cast once; gradients, SGD, average in one go", {"flat_update": True}),
    Rung("fused-bn", "BatchNorm, addition and ReLU in fastuda's kernels", {"fused_batch_norm": True}),
)


def rungs_on(device: torch.device) -> tuple[Rung, ...]:
    """The rungs that the device can have: no graph on a CPU."""
    return RUNGS if device.type == "cuda" else tuple(rung for rung in RUNGS if rung.name != "graph")


def refuse_switches(settings: Sequence[str]) -> None:
    """Raise UsageError for `--set runtime.…` of a switch that the ladder itself turns from rung to rung."""
    for setting in settings:
        field = setting.partition("=")[0].strip()
        if field.removeprefix("runtime.") in _PLAIN and field.startswith("runtime."):
            raise UsageError(f"--set {setting}: the ladder turns {field} itself; time one way alone with `bench train`")


def recipe_at(recipe: Recipe, rung: Rung) -> Recipe:
    """The recipe with the switches of all rungs up to this one."""
    switches = dict(_PLAIN)
    names = [one.name for one in RUNGS]
    for below in RUNGS[: names.index(rung.name) + 1]:
        switches |= below.runtime
    return recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update=switches)})


@dataclass
class Climbed:
    """A rung to time: each call trains one iteration on the same batches."""

    call: Callable[[], Losses]
    state: TrainingState
    iteration: Iteration

    @property
    def way(self) -> Way:
        """How its iterations run; final after the first."""
        return self.iteration.way


@contextmanager
def climbed(
    recipe: Recipe, rung: Rung, batches: tuple[DomainBatch, DomainBatch], device: torch.device
) -> Iterator[Climbed]:
    """An adaptation iteration as the rung runs it, from the network that the recipe's seed gives.

    While entered, the process has the rung's switches; compiled code of other rungs is dropped first.
    """
    at_rung = recipe_at(recipe, rung)
    configure(at_rung.runtime, device)
    compiled.forget()
    fast, passes = FastPath.of(at_rung.runtime, device), Passes.of(at_rung, device)
    state = begun(at_rung, fast, device)
    iteration = Iteration(state, at_rung, passes, fast)
    with plain_operations() if rung.plain else nullcontext():
        yield Climbed(lambda: iteration(*batches), state, iteration)
