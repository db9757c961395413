"""What pseudo-labels are worth: precision, recall and shares by class, of all of them and of those above τ."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastuda.metrics.iou import plain
from fastuda_kernels.checks import check_tensor


@dataclass(frozen=True)
class ClassPseudoLabels:
    """Those of one class; percent, NaN where there is nothing to take a share of. Ignored pixels do not count."""

    share_true: float
    """Pixels of the class, of all."""
    share_predicted: float
    """Pixels called so, of all."""
    share_kept: float
    """Pixels called so with a confidence above τ, of all."""
    precision: float
    """Right ones among the pixels called so."""
    recall: float
    """Pixels called so among those of the class."""
    precision_above_tau: float
    """Right ones among the pixels called so above τ."""
    recall_above_tau: float
    """Pixels called so above τ among all of the class: what is left of it where τ decides."""


@dataclass(frozen=True)
class PseudoLabelScores:
    """Pseudo-labels held against labels; percent."""

    tau: float
    """The threshold, 0 to 1."""
    precision: float
    """Right ones among all."""
    precision_above_tau: float
    """Right ones among those above τ; NaN without any."""
    share_kept: float
    """Those above τ."""
    classes: dict[str, ClassPseudoLabels]
    """By class name."""

    @classmethod
    def of(
        cls, every: NDArray[np.int64], confident: NDArray[np.int64], names: tuple[str, ...], tau: float
    ) -> PseudoLabelScores:
        """From confusion matrices int64 [C, C] (row: label, column: pseudo-label) of all and of confident pixels.

        Raises ValueError when a matrix does not have one row and column a name.
        """
        for matrix in (every, confident):
            if matrix.shape != (len(names), len(names)):
                raise ValueError(f"confusion has shape {list(matrix.shape)}, but there are {len(names)} class names")
        total = int(every.sum())
        true, called, kept = every.sum(1), every.sum(0), confident.sum(0)
        right, right_kept = np.diag(every), np.diag(confident)
        classes = {
            name: ClassPseudoLabels(
                share_true=_percent(true[i], total),
                share_predicted=_percent(called[i], total),
                share_kept=_percent(kept[i], total),
                precision=_percent(right[i], called[i]),
                recall=_percent(right[i], true[i]),
                precision_above_tau=_percent(right_kept[i], kept[i]),
                recall_above_tau=_percent(right_kept[i], true[i]),
            )
            for i, name in enumerate(names)
        }
        return cls(
            tau=tau,
            precision=_percent(right.sum(), total),
            precision_above_tau=_percent(right_kept.sum(), confident.sum()),
            share_kept=_percent(confident.sum(), total),
            classes=classes,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, percentages rounded to 1e-4; None where there is no value."""
        return {
            "tau": self.tau,
            "precision": plain(self.precision),
            "precision_above_tau": plain(self.precision_above_tau),
            "share_kept": plain(self.share_kept),
            "classes": {
                name: {key: plain(value) for key, value in asdict(one).items()} for name, one in self.classes.items()
            },
        }


class PseudoLabelMeter:
    """Counts images up to `PseudoLabelScores`, in memory that does not grow and without waiting for the device."""

    def __init__(self, names: tuple[str, ...], tau: float, device: torch.device) -> None:
        self._names, self._tau = names, tau
        self.counts = torch.zeros(2, len(names) ** 2 + 1, dtype=torch.int64, device=device)
        """By what it is (label and pseudo-label, or ignored) and whether it is confident; may be added to others'."""

    def add(self, label: Tensor, confidence: Tensor, truth: Tensor) -> None:
        """Count pseudo-labels uint8 [H, W] and confidence float32 [H, W] against true labels uint8 [H, W].

        Confident is what is above τ, as HTCM of the paper has it. True labels from the number of classes on are
        ignored. Raises ValueError or TypeError for other shapes, types or devices.
        """
        device, num_classes = self.counts.device, len(self._names)
        check_tensor("label", label, shape=(None, None), dtypes=(torch.uint8,), device=device)
        check_tensor("confidence", confidence, shape=label.shape, dtypes=(torch.float32,), device=device)
        check_tensor("truth", truth, shape=label.shape, dtypes=(torch.uint8,), device=device)
        pair = truth.long() * num_classes + label.long()
        pair = torch.where(truth < num_classes, pair, num_classes**2)
        place = pair + (confidence > self._tau) * self.counts.shape[1]
        ones = torch.ones_like(place, dtype=torch.int64).flatten()
        self.counts.view(-1).scatter_add_(0, place.flatten(), ones)

    def result(self) -> PseudoLabelScores:
        """Scores of what was counted so far; waits for the device."""
        num_classes = len(self._names)
        unsure, sure = self.counts[:, :-1].view(2, num_classes, num_classes).cpu().numpy()
        return PseudoLabelScores.of(unsure + sure, sure, self._names, self._tau)


def _percent(part: Any, whole: Any) -> float:
    return 100 * float(part) / float(whole) if whole else float("nan")
