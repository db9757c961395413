"""Class prototypes of a view: the mean logits of each class's positions (paper eq. 8-10; protocol row 14)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def prototypes(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean low-resolution logits over the positions of each class.

    Equations 8 and 9 as printed average over the complement of the mask and negate; what the released
    code does, and what is done here, is the mean over the mask.

    Args:
        logits: float [B, C, H', W'], one view's low-resolution logits.
        labels: uint8 [B, H, W], train ids where a position may count, 255 elsewhere; resized to
            H'×W' by nearest neighbour.

    Returns:
        [B, C, C], float32 (float64 for float64 logits): row c is class c's prototype (its logits); bool [B, C]:
        whether class c has any position. Rows of absent classes are zero.
    """
    num_classes = logits.shape[1]
    nearest = F.interpolate(labels[:, None].float(), size=logits.shape[-2:], mode="nearest")[:, 0]
    classes = torch.arange(num_classes, device=labels.device)
    wide = torch.promote_types(logits.dtype, torch.float32)
    member = (nearest.flatten(1)[..., None] == classes).to(wide)
    count = member.sum(1)
    total = member.transpose(1, 2) @ logits.flatten(2).transpose(1, 2).to(wide)
    return total / count.clamp(min=1)[..., None], count > 0
