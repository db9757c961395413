"""The frozen network whose features terms compare the student's with: the student's own start."""

from __future__ import annotations

from pathlib import Path

import torch

from fastuda.errors import FastudaError
from fastuda.files.lock import Look
from fastuda.method.terms import reads_reference
from fastuda.model.build import build_model, build_network
from fastuda.model.digest import digest
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Recipe


def reference_of(recipe: Recipe, cache: Path, look: Look | None = None) -> Segmenter | None:
    """The network as `model.weights` has it, whatever the training begins from, on the CPU; None if no term reads one.

    Random generators are left as they were. Raises FastudaError when the weights cannot be had or read.
    """
    if not reads_reference(recipe):
        return None
    with torch.random.fork_rng([]):
        return _frozen(build_model(recipe, cache, None, look)[0])


def blank_reference(recipe: Recipe) -> Segmenter | None:
    """One of the same size with random weights, for measurements; None if no term reads one."""
    if not reads_reference(recipe):
        return None
    with torch.random.fork_rng([]):
        return _frozen(build_network(recipe))


def require_same_reference(reference: Segmenter, known: str | None) -> str:
    """The digest of its weights; FastudaError when a run that goes on had another (`known`)."""
    found = digest(reference.state_dict(), {})
    if known is not None and found != known:
        raise FastudaError(
            "model.weights is not what the run began with: the terms that compare features with the frozen start need "
            f"the same file again (SHA-256 over its tensors {known[:12]}…, now {found[:12]}…)"
        )
    return found


def _frozen(model: Segmenter) -> Segmenter:
    return model.eval().requires_grad_(False)
