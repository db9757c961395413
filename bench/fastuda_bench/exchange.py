"""What an iteration has to exchange with other ranks, counted on tensors without memory from the step itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fastuda.data.loading.made import made_batches
from fastuda.distributed.gradients import BUCKET_BYTES
from fastuda.method import contrast
from fastuda.method.optimizer import parameters_of
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step
from fastuda.model import grouped_batch_norm
from fastuda.model.passes import Passes, batch_norm_layers
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath
from fastuda_bench.begun import begun
from fastuda_bench.work import GRADIENTS
from fastuda_kernels.pixel_contrast import pixel_contrast

_GPU, _CPU = torch.device("cuda", 0), torch.device("cpu")
_ACCESSES = 7
"""Of each similarity in fp32, were all fused that can be: the product writes it and exp and sum read it; again for the
gradient, where what becomes of it is written once and read by two products."""


@dataclass(frozen=True)
class Gather:
    """An all-gather of the forward pass."""

    num_bytes: int
    """Of one rank's part."""
    differentiable: bool
    """Whether its backward pass is an all-reduce of all ranks' parts."""


@dataclass(frozen=True)
class Contrasted:
    """One contrastive loss: the rows that a rank has."""

    images: int
    rows: int
    """Of an image, both views'."""
    classes: int
    chosen: bool
    """Whether a flag a row says that it counts, and has to be gathered too."""

    @property
    def gathers(self) -> list[Gather]:
        """What `distributed.gather_negatives` exchanges: rows in fp32, and flags."""
        rows = Gather(4 * self.images * self.rows * self.classes, True)
        return [rows, Gather(self.images * self.rows, False)] if self.chosen else [rows]

    def flops(self, ranks: int) -> float:
        """Floating-point operations of the products with all ranks' rows: similarities twice, gradients of both."""
        return 8.0 * self.images * self.rows * (ranks * self.rows) * self.classes

    def moved(self, ranks: int) -> float:
        """Bytes of similarities that are written and read at the least."""
        return 4.0 * _ACCESSES * self.images * self.rows * (ranks * self.rows)


@dataclass(frozen=True)
class Exchange:
    """One adaptation iteration of a rank."""

    trained: int
    """Parameters that have gradients."""
    statistics: int
    """Running means and variances of BatchNorm."""
    flops: float
    """Of the iteration's convolutions and products."""
    backwards: tuple[tuple[float, float], ...]
    """Operations that are done before each backward pass begins, and before it ends."""
    batch_norm: tuple[Gather, ...]
    """Of `distributed.sync_batch_norm`."""
    contrasted: tuple[Contrasted, ...]

    @property
    def buckets(self) -> int:
        """In which gradients go."""
        return math.ceil(4 * self.trained / BUCKET_BYTES)

    def gradients(self, precision: str = "fp32") -> int:
        """Their bytes in `distributed.gradients`."""
        return self.trained * {"fp32": 4, "bf16": 2}[precision]

    @property
    def after_first(self) -> float:
        """Share of the operations behind the first backward pass, during which its gradients can be on their way."""
        return 1 - self.backwards[0][1] / self.flops

    @property
    def last(self) -> float:
        """Share of the operations that are the last backward pass's."""
        begins, ends = self.backwards[-1]
        return (ends - begins) / self.flops


def exchanged(recipe: Recipe) -> Exchange:
    """An iteration's exchange with the views in one pass or several as the recipe has them on a GPU; nothing is run."""
    with patch.object(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True):
        passes = Passes.of(recipe, _GPU)
    with torch.random.fork_rng([]):
        state = begun(recipe, FastPath.of(recipe.runtime, _CPU), _CPU)
    grouped_batch_norm.synchronise(state.student)
    flops = FlopCounterMode(display=False, custom_mapping=GRADIENTS)
    batches, backwards = made_batches(recipe, _CPU), list[tuple[float, float]]()
    with (
        _gathers_noted() as batch_norm,
        _contrast_noted() as contrasted,
        _backwards_noted(state, flops, backwards),
        sdpa_kernel(SDPBackend.MATH),  # whose products torch counts
        FakeTensorMode(allow_non_fake_inputs=True),
        flops,
    ):
        adaptation_step(state, *batches, recipe, passes)
    layers = batch_norm_layers(state.student)
    return Exchange(
        trained=sum(parameter.numel() for parameter in parameters_of(state.optimizer)),
        statistics=sum(2 * layer.num_features for layer in layers if layer.track_running_stats),
        flops=float(flops.get_total_flops()),
        backwards=tuple(backwards),
        batch_norm=tuple(batch_norm),
        contrasted=tuple(contrasted),
    )


@contextmanager
def _gathers_noted() -> Iterator[list[Gather]]:
    """While entered, BatchNorm over all ranks is alone, and what it would gather is noted."""
    noted: list[Gather] = []

    def gather(x: Tensor) -> Tensor:
        noted.append(Gather(x.numel() * x.element_size(), x.requires_grad))
        return x[None]

    with patch.object(grouped_batch_norm, "gather", gather):
        yield noted


@contextmanager
def _contrast_noted() -> Iterator[list[Contrasted]]:
    noted: list[Contrasted] = []

    def noting(first: Tensor, second: Tensor, *arguments: Any, valid: Tensor | None = None, **more: Any) -> Tensor:
        images, rows, classes = first.shape
        noted.append(Contrasted(images, 2 * rows, classes, valid is not None))
        return pixel_contrast(first, second, *arguments, valid=valid, **more)

    with patch.object(contrast, "pixel_contrast", noting):
        yield noted


@contextmanager
def _backwards_noted(state: TrainingState, flops: FlopCounterMode, noted: list[tuple[float, float]]) -> Iterator[None]:
    own = state.backward

    def noting(loss: Tensor) -> None:
        begins = float(flops.get_total_flops())
        own(loss)
        noted.append((begins, float(flops.get_total_flops())))

    with patch.object(state, "backward", noting):
        yield
