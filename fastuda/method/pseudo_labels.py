"""What the teacher says of the target crops (protocol rows 3, 5, 16)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastuda.classes import IGNORE_INDEX
from fastuda.data.loading.batch import DomainBatch
from fastuda.model.passes import Passes, teaching
from fastuda.model.segmenter import Outputs, Segmenter
from fastuda.recipe import Method
from fastuda_kernels.pseudo_label import pseudo_label


class PseudoLabels(NamedTuple):
    """Labels uint8 [B, H, W] and confidence float32 [B, H, W] of the target crops."""

    label: Tensor
    """The main head's classes."""
    confidence: Tensor
    """The main head's largest probability."""
    two_head: Tensor
    """Classes of both heads' averaged softmax; the main head's without an auxiliary head."""

    def above(self, tau: float) -> Tensor:
        """Where the confidence is above `tau`: bool [B, H, W]."""
        return self.confidence > tau

    def class_balanced(self, portion: float) -> PseudoLabels:
        """These with confidence 1 for the most confident `portion` of each class's pixels in the batch, 0 elsewhere.

        At least one pixel of a class is chosen, and with the last of its portion those of equal confidence. So CBST
        chooses pseudo-labels (Zou et al., ECCV 2018), over a whole data set; no class crowds out another.
        """
        surest_first = self.confidence.flatten().argsort(descending=True, stable=True)
        label = self.label.flatten().long()
        order = surest_first[label[surest_first].argsort(stable=True)]
        label, confidence = label[order], self.confidence.flatten()[order]
        begin, end = (torch.searchsorted(label, label, right=right) for right in (False, True))
        last = begin + ((end - begin).double() * portion).ceil().long() - 1
        chosen = (confidence >= confidence[last]).to(confidence.dtype)
        return self._replace(confidence=torch.zeros_like(chosen).scatter(0, order, chosen).view_as(self.confidence))

    def only(self, kept: Tensor) -> PseudoLabels:
        """These labels where `kept`, bool [B, H, W]; the others ignored."""
        label, two_head = (labels.masked_fill(~kept, IGNORE_INDEX) for labels in (self.label, self.two_head))
        return PseudoLabels(label, self.confidence, two_head)


def by_confidence_rule(pseudo: PseudoLabels, method: Method) -> PseudoLabels:
    """These with confidences of which `method.tau` lets through what `method.confident` says (protocol row 11)."""
    return pseudo.class_balanced(method.portion) if method.confident == "class-balanced" else pseudo


@torch.no_grad()
def label_crops(
    logits: Outputs, crop_size: tuple[int, int], view_size: tuple[int, int] | None, boxes: Tensor | None
) -> PseudoLabels:
    """Pseudo-labels at `crop_size` (height, width) from logits of the view the crops were cut from.

    `view_size` (height, width) and `boxes` [B, 4] place the crops; None when the logits are the crops' own.
    """
    main, corners = logits.logits, logits.align_corners
    label, confidence = pseudo_label(main, crop_size, view_size=view_size, boxes=boxes, align_corners=corners)
    if logits.auxiliary is None:
        return PseudoLabels(label, confidence, label)
    both, _ = pseudo_label(
        main, crop_size, auxiliary=logits.auxiliary, view_size=view_size, boxes=boxes, align_corners=corners
    )
    return PseudoLabels(label, confidence, both)


@torch.no_grad()
def label_target(teacher: Segmenter, target: DomainBatch, passes: Passes) -> PseudoLabels:
    """The teacher's labels of the target crops, read out of its prediction of the whole view (rows 2, 3, 5)."""
    crop_size = (target.weak.shape[1], target.weak.shape[2])
    with teaching(teacher):
        if target.view is None:
            return label_crops(passes.raw(teacher, target.weak), crop_size, None, None)
        view_size = (target.view.shape[1], target.view.shape[2])
        return label_crops(passes.raw(teacher, target.view), crop_size, view_size, target.boxes)
