"""Bilinear sampling of logits as two small matrix products, then softmax and arg-max.

B images, C classes, h w low resolution, H W output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def label_of_upsampled(
    logits: Tensor,
    size: tuple[int, int],
    auxiliary: Tensor | None,
    view_size: tuple[int, int] | None,
    boxes: Tensor | None,
    flip: Tensor | None,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """Label uint8 [B, H, W] and confidence float32 [B, H, W]; protocol rows 2, 3, 5, 16."""
    rows, columns = _weights(logits, size, view_size, boxes, flip, align_corners)
    probability = _sample(logits, rows, columns).softmax(1)
    if auxiliary is not None:
        probability = (probability + _sample(auxiliary, rows, columns).softmax(1)) / 2
    confidence, label = probability.max(1)
    return label.to(torch.uint8), confidence.float()


def confusion_of_upsampled(logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool) -> Tensor:
    """int64 [C, C] of class by prediction; protocol row 23."""
    num_classes = logits.shape[1]
    wide = logits if logits.dtype == torch.float64 else logits.float()
    full = F.interpolate(wide, size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)
    prediction = full.argmax(1)
    truth = labels.long()
    counted = (truth != ignore_index) & (truth < num_classes)
    # Pixels that do not count share one extra cell: the shape stays fixed, and nothing waits for the host.
    cell = torch.where(counted, truth * num_classes + prediction, num_classes * num_classes)
    counts = torch.zeros(num_classes * num_classes + 1, dtype=torch.int64, device=logits.device)
    counts.scatter_add_(0, cell.flatten(), torch.ones_like(cell).flatten())
    return counts[:-1].view(num_classes, num_classes)


def _weights(
    logits: Tensor,
    size: tuple[int, int],
    view_size: tuple[int, int] | None,
    boxes: Tensor | None,
    flip: Tensor | None,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """Interpolation weights [B, H, h] and [B, W, w] of each output row and column."""
    num_images, _, low_height, low_width = logits.shape
    if boxes is None or view_size is None:
        top = left = logits.new_zeros(num_images, dtype=torch.float32)
        # Output pixels are the view's own pixels, whatever its size.
        extent = view_size = size
        height, width = top + extent[0], left + extent[1]
    else:
        top, left, height, width = boxes.float().unbind(1)
    y = _centres(size[0], top, height, view_size[0], low_height, align_corners)
    x = _centres(size[1], left, width, view_size[1], low_width, align_corners)
    if flip is not None:
        x = torch.where(flip[:, None], x.flip(1), x)
    return _hat(y, low_height), _hat(x, low_width)


def _centres(num: int, start: Tensor, extent: Tensor, view: int, low: int, align_corners: bool) -> Tensor:
    """Low-resolution coordinate [B, num] of each output pixel's centre."""
    step = torch.arange(num, device=start.device, dtype=torch.float32) + 0.5
    # From the view's edge; a pixel's centre is half a pixel behind its own edge, and so is a position's.
    in_view = start[:, None] + step * (extent / num)[:, None]
    if align_corners:
        return ((in_view - 0.5) * ((low - 1) / max(view - 1, 1))).clamp(0, low - 1)
    return (in_view * (low / view) - 0.5).clamp(0, low - 1)


def _hat(coordinate: Tensor, low: int) -> Tensor:
    grid = torch.arange(low, device=coordinate.device, dtype=torch.float32)
    return (1 - (coordinate[..., None] - grid).abs()).clamp(min=0)


def _sample(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    half = torch.einsum("bHh,bchw->bcHw", rows.to(wide.dtype), wide)
    return torch.einsum("bWw,bcHw->bcHW", columns.to(wide.dtype), half)
