"""One iteration of each stage, top to bottom: what is to be compiled and captured as a graph.

Fixed shapes and no host sync: nothing here asks a tensor for a Python number, so the same code runs
eagerly, compiled, under `FakeTensorMode` and inside a CUDA graph.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from fastuda.data.loading.batch import DomainBatch
from fastuda.method.draws import Draws
from fastuda.method.losses import mixed_losses, source_losses, weighted_sum
from fastuda.method.mixing import mixed_views
from fastuda.method.pseudo_labels import label_target
from fastuda.method.state import TrainingState
from fastuda.method.term import Losses
from fastuda.method.terms import source_terms
from fastuda.model.passes import Passes, frozen_running_statistics, in_training
from fastuda.model.segmenter import Segmenter
from fastuda.recipe import Recipe
from fastuda_kernels.masked_mix import normalise


def warmup_step(state: TrainingState, source: DomainBatch, recipe: Recipe, passes: Passes) -> Losses:
    """One source-only iteration: L_s (paper eq. 1; protocol row 22). Returns detached terms and `total`."""
    state.begin_iteration()
    losses = _source_losses(state.worker.train(), state.reference, source, recipe, passes)
    total = weighted_sum(losses, recipe)
    state.backward(total)
    losses = state.all_ranks({**losses, "total": total})
    state.end_iteration(losses["total"], passes.optimised)
    return losses


def adaptation_step(
    state: TrainingState, source: DomainBatch, target: DomainBatch, recipe: Recipe, passes: Passes
) -> Losses:
    """One iteration of the method: L of paper eq. 12. Returns detached terms and `total`.

    Passes through the network, in the order in which BatchNorm's running statistics see them: source view, target
    view, class-mixed strong view, class-mixed weak view, HTCM image (protocol rows 1-12, 19).
    """
    state.begin_iteration()

    student = in_training(state.worker, recipe.method.student_batch_norm)
    on_source = _source_losses(student, state.reference, source, recipe, passes)
    state.backward(weighted_sum(on_source, recipe))  # its activations go before the mixed passes come

    with _statistics_kept(state.worker, kept=recipe.method.student_batch_norm == "running"):
        pseudo = label_target(teacher_of(state, recipe), target, passes)
    student = in_training(state.worker, recipe.method.student_batch_norm)
    draws = Draws(recipe.seed, state.iteration, state.ranks.rank)
    with _statistics_kept(student, kept=recipe.method.running_statistics == "views"):
        views = mixed_views(student, source, target, pseudo, recipe, passes, draws, state.reference)
    losses = passes.optimised(mixed_losses)(views, recipe)
    if losses:
        state.backward(weighted_sum(losses, recipe))
    losses = {name: loss.detach() for name, loss in {**on_source, **losses}.items()}
    losses["total"] = weighted_sum(losses, recipe)

    losses = state.all_ranks(losses)
    state.end_iteration(losses["total"], passes.optimised)
    return losses


def _source_losses(
    student: Segmenter, reference: Segmenter | None, source: DomainBatch, recipe: Recipe, passes: Passes
) -> Losses:
    """Terms on the whole source view or, in a recipe of crops alone, on the crop."""
    images, labels = (source.weak, source.label) if source.view is None else (source.view, source.view_label)
    assert labels is not None
    terms, normalised = source_terms(recipe), normalise(images, passes.normalisation)
    outputs = passes.normalised(student, normalised, features=any(term.reads_features for term in terms))
    if any(term.reads_reference for term in terms):
        assert reference is not None
        outputs = outputs._replace(reference=passes.encoded(reference, normalised))
    return passes.optimised(source_losses)(outputs, labels, recipe)


def _statistics_kept(student: Segmenter, *, kept: bool) -> AbstractContextManager[None]:
    return frozen_running_statistics(student) if kept else nullcontext()


def teacher_of(state: TrainingState, recipe: Recipe) -> Segmenter:
    """Who makes the pseudo-labels, and with which BatchNorm statistics (protocol row 3)."""
    if recipe.method.teacher_batch_norm == "running":
        return state.worker.eval() if recipe.method.teacher == "student" else state.evaluation_model()
    return (state.worker if recipe.method.teacher == "student" else state.averaged).train()
