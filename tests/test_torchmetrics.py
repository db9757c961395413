"""Confusion matrix, IoU and accuracies against torchmetrics, on random maps with ignored pixels and absent classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from fastuda.metrics import Scores
from fastuda_kernels.pseudo_label import argmax_confusion

IGNORED = 255
# torchmetrics divides in single precision.
PRECISION = 1e-6


@dataclass(frozen=True)
class Case:
    num_classes: int
    absent: int | None = None
    """A class that neither labels nor predictions have."""
    only_predicted: int | None = None
    seed: int = 0


CASES = {
    "two classes": Case(2),
    "5 classes": Case(5, seed=1),
    "19 classes": Case(19, seed=2),
    "150 classes": Case(150, seed=3),
    "an absent class": Case(5, absent=1, seed=4),
    "the last class absent": Case(19, absent=18, seed=5),
    "a class only predicted": Case(5, only_predicted=0, seed=6),
    "a class absent and one only predicted": Case(19, absent=4, only_predicted=17, seed=7),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def maps(case: Case) -> tuple[Tensor, Tensor]:
    """Labels with ignored pixels, and predictions of which every second one is right, both int64 [2, 120, 160]."""
    rng = np.random.default_rng(case.seed)
    shape = (2, 120, 160)
    predictable = [c for c in range(case.num_classes) if c != case.absent]
    labels = rng.choice([c for c in predictable if c != case.only_predicted], shape)
    predictions = np.where(rng.random(shape) < 0.5, labels, rng.choice(predictable, shape))
    labels[rng.random(shape) < 0.1] = IGNORED
    return torch.from_numpy(labels), torch.from_numpy(predictions)


def confusion(case: Case) -> Tensor:
    labels, predictions = maps(case)
    logits = F.one_hot(predictions, case.num_classes).movedim(-1, 1).float()
    return argmax_confusion(logits, labels.to(torch.uint8))


def ours(case: Case) -> Scores:
    return Scores.of(confusion(case).numpy(), tuple(f"class {c}" for c in range(case.num_classes)), "full")


def theirs(metric: type, case: Case, **options: object) -> Tensor:
    labels, predictions = maps(case)
    result = metric(num_classes=case.num_classes, ignore_index=IGNORED, **options)(predictions, labels)
    assert isinstance(result, Tensor)
    return result


def labelled(case: Case) -> list[int]:
    return [c for c in range(case.num_classes) if c not in (case.absent, case.only_predicted)]


@every_case
def test_the_confusion_matrix_is_theirs(case: Case) -> None:
    found = confusion(case)
    assert torch.equal(found, theirs(MulticlassConfusionMatrix, case))
    assert 0 < int(found.sum()) < maps(case)[0].numel()


@every_case
def test_iou_a_class_is_theirs(case: Case) -> None:
    found = np.array([*ours(case).iou.values()])
    expected = 100 * theirs(MulticlassJaccardIndex, case, average="none").numpy()
    # An absent class has no IoU here, and one of 0 there.
    assert np.isnan(found).nonzero()[0].tolist() == ([] if case.absent is None else [case.absent])
    assert np.nan_to_num(found) == pytest.approx(expected, rel=PRECISION)
    assert case.only_predicted is None or found[case.only_predicted] == 0


@every_case
def test_miou_is_theirs(case: Case) -> None:
    # Both leave an absent class out of the mean, and count one that is only predicted as 0.
    expected = float(theirs(MulticlassJaccardIndex, case, average="macro"))
    assert ours(case).miou == pytest.approx(100 * expected, rel=PRECISION)


@every_case
def test_pixel_accuracy_is_theirs(case: Case) -> None:
    expected = float(theirs(MulticlassAccuracy, case, average="micro"))
    assert ours(case).pixel_accuracy == pytest.approx(100 * expected, rel=PRECISION)


@every_case
def test_mean_accuracy_is_the_mean_of_theirs_over_the_labelled_classes(case: Case) -> None:
    a_class = theirs(MulticlassAccuracy, case, average="none")[labelled(case)]
    assert ours(case).mean_accuracy == pytest.approx(100 * float(a_class.mean()), rel=PRECISION)


@every_case
def test_their_mean_accuracy_differs_by_counting_a_class_that_is_only_predicted(case: Case) -> None:
    # Such a class has no pixel of which a share could be right; torchmetrics calls its accuracy 0.
    expected = float(theirs(MulticlassAccuracy, case, average="macro"))
    num_labelled = len(labelled(case))
    num_averaged = num_labelled + (case.only_predicted is not None)
    assert ours(case).mean_accuracy * num_labelled / num_averaged == pytest.approx(100 * expected, rel=PRECISION)
