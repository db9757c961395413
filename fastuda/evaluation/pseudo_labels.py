"""What the teacher of a training says of labelled images: to look at pseudo-labels, never to train or to choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.packing.pack import Packed
from fastuda.memory.out_of_memory import memory_told
from fastuda.method.state import TrainingState
from fastuda.method.step import teacher_of
from fastuda.metrics.pseudo_labels import PseudoLabelMeter, PseudoLabelScores
from fastuda.model.passes import Passes, teaching
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Recipe
from fastuda_kernels.pseudo_label import pseudo_label

Progress = Callable[[int, int], None]


@torch.no_grad()
def look_at_pseudo_labels(
    state: TrainingState, images: Packed, recipe: Recipe, passes: Passes, *, progress: Progress | None = None
) -> PseudoLabelScores:
    """Hold what the recipe's teacher says now of `images`, at `views.target_size`, against their labels.

    The teacher is the iteration's own (protocol row 3): student or average, BatchNorm on the batch's statistics, of
    `train.batch_size` images as in training, or on the running ones. Images are plain, not flipped or blurred, and
    answers are read out at the label's own size. Ranks share the batches. Everything of the state is afterwards as it
    was before: weights, statistics, modes, random generators. Raises FastudaError for a sample that fails and when
    memory runs out.
    """
    device, batch = state.iteration.device, recipe.train.batch_size
    meter = PseudoLabelMeter(recipe.classes.build().names, recipe.method.tau, device)
    ranks = state.ranks
    loader = EvaluationLoader(images, batch, recipe.runtime.loader_threads, device, share=(ranks.rank, ranks.size))
    done = 0
    with (
        ranks.breaking_off(),
        _left_as_it_is(state.student, state.worker, state.averaged),
        torch.random.fork_rng([device.index] if device.type == "cuda" else []),
        memory_told("evaluation", recipe, device, batch),
    ):
        teacher = teacher_of(state, recipe)
        for one in loader:
            with teaching(teacher):
                outputs = passes.raw(teacher, one.images.to(device)).main_head()
            for i, truth in enumerate(one.labels):
                own = outputs.main_head(slice(i, i + 1))
                size = (truth.shape[0], truth.shape[1])
                label, confidence = pseudo_label(own.logits, size, align_corners=own.align_corners)
                meter.add(label[0], confidence[0], truth)
            done += len(one.names)
            if progress is not None:
                progress(done, len(loader))
    ranks.sum_(meter.counts)
    return meter.result()


@contextmanager
def _left_as_it_is(*models: Segmenter) -> Iterator[None]:
    """Whatever is done to the models' modes and buffers meanwhile is undone."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for model in models for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, training in modes:
            module.training = training
