"""Ranks that train together: the gradients, statistics and weights of one process with the same global batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from in_ranks import in_ranks
from rank_steps import contrast_on_rank, fresh, recipe_of, recomputed, several_on_ranks, trained
from torch import Tensor

from fastuda.method.contrast import pixel_loss, prototype_loss
from fastuda.recipe import Contrast

CLOSE = 1e-10
SYNC = "distributed.sync_batch_norm=true"


def furthest(one: list[Tensor], other: list[Tensor]) -> float:
    assert len(one) == len(other) > 0
    return max(float((a.double() - b.double()).abs().max()) for a, b in zip(one, other, strict=True))


def require_equal(found: list[list[dict[str, Any]]], expected: list[dict[str, Any]]) -> None:
    """Every rank's history is one process's: losses where it says them, gradients, statistics and weights."""
    for own in found:
        for here, there in zip(own, expected, strict=True):
            if here["gradients"]:  # a flat update leaves none on the parameters
                assert furthest(here["gradients"], there["gradients"]) < CLOSE
            assert here["student"].keys() == there["student"].keys()
            assert furthest([*here["student"].values()], [*there["student"].values()]) < CLOSE
            if "losses" in there:
                assert here["losses"] == pytest.approx(there["losses"], abs=CLOSE)


def require_alike(found: list[list[dict[str, Any]]]) -> None:
    """Every rank has the same state to the last bit."""
    for own in found[1:]:
        for here, there in zip(own, found[0], strict=True):
            assert [
                name for name in here["student"] if not torch.equal(here["student"][name], there["student"][name])
            ] == []
            assert here["losses"] == there["losses"]


@pytest.mark.parametrize("size", [2, 3])
def test_synchronised_ranks_train_as_one_process_with_the_global_batch(size: int, tmp_path: Path) -> None:
    alone, whole = recipe_of(), recipe_of(SYNC)
    apart = recipe_of(SYNC, "distributed.overlap=true")
    cases = {
        "plain": (whole, "adaptation", False),
        "flat": (whole, "adaptation", True),
        "overlap": (apart, "adaptation", False),
        "flat overlap": (apart, "adaptation", True),
        "warm-up": (whole, "warm-up", False),
    }
    found = in_ranks(size, tmp_path, several_on_ranks, cases)
    expected = {work: trained(fresh(alone), alone, size, None, work) for work in ("adaptation", "warm-up")}
    for name, (_, work, _flat) in cases.items():
        own = [one[name] for one in found]
        require_alike(own)
        require_equal(own, expected[work])


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_with_a_batch_norm_of_their_own_are_the_plain_mean_of_their_shares(size: int, tmp_path: Path) -> None:
    recipe = recipe_of()
    cases = {"own": (recipe, "adaptation", False), "flat": (recipe, "adaptation", True)}
    found = in_ranks(size, tmp_path, several_on_ranks, cases)
    expected = recomputed(recipe, size)
    for name in cases:
        own = [one[name] for one in found]
        require_alike(own)
        require_equal(own, expected)
    # It is another thing than one process with the whole batch.
    whole = trained(fresh(recipe), recipe, size, None)
    assert furthest([*whole[-1]["student"].values()], [*expected[-1]["student"].values()]) > 1e6 * CLOSE


def test_rates_are_scaled_and_sums_rounded_where_the_recipe_says_so(tmp_path: Path) -> None:
    linear = recipe_of(SYNC, "distributed.lr_scaling=linear")
    rounded = recipe_of(SYNC, "distributed.gradients=bf16")
    still = recipe_of("method.student_batch_norm=running")
    cases = {
        "linear": (linear, "adaptation", False),
        "bf16": (rounded, "adaptation", True),
        "still": (still, "adaptation", False),
    }
    found = in_ranks(3, tmp_path, several_on_ranks, cases)
    for name in cases:
        require_alike([one[name] for one in found])
    tripled = recipe_of("train.optimizer.lr_backbone=2.25e-3", "train.optimizer.lr_head=7.5e-3")
    require_equal([one["linear"] for one in found], trained(fresh(tripled), tripled, 3, None))
    exact = trained(fresh(recipe_of()), recipe_of(), 3, None)
    error = furthest([*found[0]["bf16"][-1]["student"].values()], [*exact[-1]["student"].values()])
    assert CLOSE < error < 1e-2
    # What no pass moves stays to the last bit, though three equal numbers' mean need not be that number.
    before = fresh(still).student.state_dict()
    after = found[0]["still"][-1]["student"]
    kept = [name for name in before if "running" in name]
    assert kept
    assert [name for name in kept if not torch.equal(before[name], after[name])] == []


def test_other_ranks_rows_are_negatives(tmp_path: Path) -> None:
    size, generator = 3, torch.Generator().manual_seed(0)
    first, second = torch.randn(2, size, 5, 7, 6, generator=generator, dtype=torch.float64).unbind()
    labels = torch.randint(0, 7, (size, 14, 12), generator=generator).to(torch.uint8)
    labels[labels >= 5] = 255
    settings = Contrast()
    found = in_ranks(size, tmp_path, contrast_on_rank, first, second, labels, settings)

    views = [one.clone().requires_grad_() for one in (first, second)]
    losses = by_definition(*views, labels, settings)
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    assert [loss for loss, _ in found] == pytest.approx([loss.item() for loss in losses], abs=1e-12)
    for rank, (_, gradients) in enumerate(found):
        for mine, view in zip(gradients, views, strict=True):
            assert view.grad is not None
            torch.testing.assert_close(mine[0], view.grad[rank], rtol=0, atol=1e-12)
    alone = pixel_loss(first[:1], second[:1], settings.pixel_scale)
    assert float(alone + prototype_loss(first[:1], second[:1], labels[:1], settings)) < found[0][0] - 0.1


def by_definition(first: Tensor, second: Tensor, labels: Tensor, settings: Contrast) -> list[Tensor]:
    """Each rank's loss, of one image, over the dense matrix of all ranks' rows."""
    losses = []
    for rank in range(len(first)):
        total = torch.zeros((), dtype=torch.float64)
        for scale, kind in ((settings.pixel_scale, "pixel"), (settings.prototype_scale, "prototype")):
            rows = [of_image(one, other, label, kind) for one, other, label in zip(first, second, labels, strict=True)]
            every = torch.cat([both for both, _ in rows])
            valid = torch.cat([counts for _, counts in rows])
            start = sum(len(both) for both, _ in rows[:rank])
            own, half = len(rows[rank][0]), len(rows[rank][0]) // 2
            similarity = scale * (every @ every.T)
            terms = []
            for i in range(start, start + own):
                if not valid[i]:
                    continue
                positive = start + (i - start + half) % own
                others = valid.clone()
                others[i] = False
                terms.append(similarity[i, others].logsumexp(0) - similarity[i, positive])
            total = total + torch.stack(terms).mean()
        losses.append(total)
    return losses


def of_image(first: Tensor, second: Tensor, label: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """The rows of both views [2N, C], class probabilities, and which count."""
    if kind == "pixel":
        rows = torch.cat([one.flatten(1).T for one in (first, second)])
        return rows.softmax(-1), torch.ones(len(rows), dtype=torch.bool)
    nearest = label[::2, ::2]
    rows, counts = [], []
    for view in (first, second):
        for index in range(len(first)):
            member = nearest == index
            counts.append(bool(member.any()))
            rows.append(view[:, member].mean(1) if member.any() else torch.zeros(len(first), dtype=torch.float64))
    return torch.stack(rows).softmax(-1), torch.tensor(counts)
