"""Upsampling and cross-entropy as two library calls: the specification of the fused kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy_of_upsampled(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int,
    weight: Tensor | None,
    mask: Tensor | None,
    align_corners: bool,
) -> Tensor:
    """Mean over counted pixels of CE(upsample(logits [B, C, H', W']), labels [B, H, W]); 0 if none counts."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    full = F.interpolate(wide, size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)
    targets = labels.long()
    if mask is not None:
        targets = torch.where(mask, targets, ignore_index)
    per_pixel = F.cross_entropy(full, targets, ignore_index=ignore_index, reduction="none")
    counted = targets != ignore_index
    if weight is not None:
        # A weight that is no number must not show where the pixel does not count.
        per_pixel = per_pixel * torch.where(counted, weight.detach().to(per_pixel.dtype), 0)
    return per_pixel.sum() / counted.sum().clamp(min=1)
