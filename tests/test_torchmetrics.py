"""Confusion matrices, IoU and accuracies against torchmetrics on random maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastuda.metrics import scores
from fastuda_kernels.pseudo_label import argmax_confusion

torchmetrics = pytest.importorskip("torchmetrics.classification")

CASES = [(2, 0, ()), (3, 1, ()), (13, 2, ()), (16, 3, (5,)), (19, 4, ()), (19, 5, (0, 16, 18))]
"""Number of classes, seed, classes that neither labels nor predictions have."""


def maps(num_classes: int, seed: int, absent: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Predictions and labels uint8 [4, 33, 47], related, a tenth of the labels ignored."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.tensor([c for c in range(num_classes) if c not in absent])
    labels = present[torch.randint(len(present), (4, 33, 47), generator=generator)]
    others = present[torch.randint(len(present), (4, 33, 47), generator=generator)]
    predictions = torch.where(torch.rand(labels.shape, generator=generator) < 0.6, labels, others)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    return predictions.to(torch.uint8), labels.to(torch.uint8)


def confusion(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    logits = 20 * F.one_hot(predictions.long(), num_classes).permute(0, 3, 1, 2).float()
    return argmax_confusion(logits, labels)


@pytest.mark.parametrize(("num_classes", "seed", "absent"), CASES)
def test_confusion_matrices_are_the_same(num_classes: int, seed: int, absent: tuple[int, ...]) -> None:
    predictions, labels = maps(num_classes, seed, absent)
    metric = torchmetrics.MulticlassConfusionMatrix(num_classes, ignore_index=255)
    assert torch.equal(confusion(predictions, labels, num_classes), metric(predictions, labels))


@pytest.mark.parametrize(("num_classes", "seed", "absent"), CASES)
def test_iou_and_accuracies_are_the_same(num_classes: int, seed: int, absent: tuple[int, ...]) -> None:
    predictions, labels = maps(num_classes, seed, absent)
    names = tuple(str(c) for c in range(num_classes))
    found = scores(confusion(predictions, labels, num_classes).numpy(), names, "full")
    settings = {"num_classes": num_classes, "ignore_index": 255}

    iou = 100 * torchmetrics.MulticlassJaccardIndex(average=None, **settings)(predictions, labels)
    # torchmetrics calls an absent class 0 in the list and leaves it out of the mean; here it has no value.
    for c, name in enumerate(names):
        if c in absent:
            assert torch.isnan(torch.tensor(found.iou[name]))
        else:
            assert found.iou[name] == pytest.approx(iou[c].item(), abs=1e-4)
    mean = torchmetrics.MulticlassJaccardIndex(average="macro", **settings)(predictions, labels)
    assert found.miou == pytest.approx(100 * mean.item(), abs=1e-4)

    accuracy = torchmetrics.MulticlassAccuracy(average="micro", **settings)(predictions, labels)
    assert found.pixel_accuracy == pytest.approx(100 * accuracy.item(), abs=1e-4)
    recall = torchmetrics.MulticlassAccuracy(average="macro", **settings)(predictions, labels)
    assert found.mean_accuracy == pytest.approx(100 * recall.item(), abs=1e-4)
    assert 40 < found.miou < 90


def test_a_class_that_is_only_predicted_counts_as_zero_in_both() -> None:
    predictions, labels = maps(5, 6, (4,))
    predictions[0, :3] = 4
    found = scores(confusion(predictions, labels, 5).numpy(), tuple("abcde"), "full")
    mean = torchmetrics.MulticlassJaccardIndex(5, ignore_index=255)(predictions, labels)
    assert found.iou["e"] == 0
    assert found.miou == pytest.approx(100 * mean.item(), abs=1e-4)
