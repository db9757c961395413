"""How far a network's features are from a frozen one's, in the two forms that are in use.

Dimensions: B images, D features, H W pixels, H' W' positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["euclidean", "smooth-cosine"]
_SMOOTH, _COSINE = 0.1, 0.9


def feature_distance(features: Tensor, reference: Tensor, form: Form, counted: Tensor | None = None) -> Tensor:
    """Mean distance over positions between float [B, D, H', W'] features and a frozen network's, a scalar.

    `euclidean` is the norm over the features of a position (DAFormer, CVPR '22, eq. 9); `smooth-cosine` 0.1 · smooth
    L1, a mean over the features, + 0.9 · (1 − cosine) (VFM-UDA++). `counted`, bool [B, H', W'], are the positions that
    count, all without it; 0 if none does. Computed in float32 at least.
    """
    wide = features if features.dtype == torch.float64 else features.float()
    other = reference.detach().to(wide.dtype)
    if form == "euclidean":
        # Not the library's norm, whose gradient where nothing differs yet is no number under a mask.
        squares = (wide - other).square().sum(1)
        distance = torch.where(squares > 0, squares, 1).sqrt() * (squares > 0)
    else:
        smooth = F.smooth_l1_loss(wide, other, reduction="none").mean(1)
        distance = _SMOOTH * smooth + _COSINE * (1 - F.cosine_similarity(wide, other, dim=1))
    if counted is None:
        return distance.mean()
    return (distance * counted).sum() / counted.sum().clamp(min=1)


def positions_of(labels: Tensor, classes: Sequence[int], size: tuple[int, int], least_share: float) -> Tensor:
    """bool [B, H', W']: where one of `classes` has at least `least_share` of the pixels that a position stands for.

    `labels` uint8 [B, H, W], ignored pixels among those of which the share is taken; `size` is (H', W').
    """
    found = labels.new_zeros((len(labels), *size), dtype=torch.bool)
    for train_id in classes:
        share = F.adaptive_avg_pool2d((labels == train_id).float(), size)
        found = found | (share >= least_share)
    return found
