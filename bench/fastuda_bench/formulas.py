"""The four operations as one would type them in PyTorch: the baselines of `fastuda bench kernels`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dense_contrast(p: Tensor, q: Tensor, scale: float) -> Tensor:
    """Paper eq. 11 on softmaxed logits [B, N, C]: the whole (2N)² matrix of each image."""
    rows = torch.cat([p, q], dim=1).softmax(-1, dtype=torch.float32)
    num_rows = rows.shape[1]
    similarity = scale * (rows @ rows.transpose(1, 2))
    own = torch.eye(num_rows, dtype=torch.bool, device=rows.device)
    positive = (rows * rows.roll(num_rows // 2, dims=1)).sum(-1) * scale
    return (similarity.masked_fill(own, float("-inf")).logsumexp(-1) - positive).mean()


def upsampled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Paper eq. 1: full-size logits, then the library's cross-entropy; labels int64 [B, H, W]."""
    full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=True)
    return F.cross_entropy(full, labels, ignore_index=255)


def cropped_pseudo_label(logits: Tensor, view: tuple[int, int], box: tuple[int, int, int, int], size: int) -> Tensor:
    """Full-size probabilities of the view, cut to (top, left, height, width), resized, arg-maxed (protocol row 5)."""
    top, left, height, width = box
    full = F.interpolate(logits.float(), size=view, mode="bilinear", align_corners=True).softmax(1)
    confidence, label = full[:, :, top : top + height, left : left + width].max(1)
    return F.interpolate(torch.stack([confidence, label.float()], 1), size=(size, size), mode="nearest")


def upsampled_confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Full-size logits, arg-max, `bincount`; labels uint8 [B, H, W]; the result is int64 [C, C]."""
    num_classes = logits.shape[1]
    full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=True)
    truth, prediction = labels.long().flatten(), full.argmax(1).flatten()
    counted = truth < num_classes
    cells = truth[counted] * num_classes + prediction[counted]
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)
