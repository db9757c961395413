"""The five operations as one would type them in PyTorch: the baselines of `fastuda bench kernels`."""

from __future__ import annotations

from collections.abc import Sequence

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


def upsampled_cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, align_corners: bool = True
) -> Tensor:
    """Paper eq. 1: full-size logits, then the library's cross-entropy; labels int64 and weight [B, H, W]."""
    full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)
    if weight is not None:
        weighted = weight * F.cross_entropy(full, labels, ignore_index=255, reduction="none")
        return weighted.sum() / (labels != 255).sum()
    return F.cross_entropy(full, labels, ignore_index=255)


def cropped_pseudo_label(
    logits: Tensor,
    view: tuple[int, int],
    boxes: Tensor,
    size: tuple[int, int],
    auxiliary: Tensor | None = None,
    align_corners: bool = True,
) -> tuple[Tensor, Tensor]:
    """Outputs sampled at the pixels of crops of the view, softmax, max; boxes are (top, left, height, width).

    With `auxiliary` logits the two softmaxes are averaged.
    """
    rows, columns = ((torch.arange(length, device=logits.device) + 0.5) / length for length in size)
    y = boxes[:, 0:1] + rows * boxes[:, 2:3] - 0.5
    x = boxes[:, 1:2] + columns * boxes[:, 3:4] - 0.5
    if align_corners:
        y, x = 2 * y / (view[0] - 1) - 1, 2 * x / (view[1] - 1) - 1
    else:
        y, x = (2 * y + 1) / view[0] - 1, (2 * x + 1) / view[1] - 1
    grid = torch.stack([x[:, None, :].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])], dim=-1)

    def probabilities(head: Tensor) -> Tensor:
        wide = head.float()
        return F.grid_sample(wide, grid, "bilinear", padding_mode="border", align_corners=align_corners).softmax(1)

    mean = probabilities(logits) if auxiliary is None else (probabilities(logits) + probabilities(auxiliary)) / 2
    confidence, label = mean.max(1)
    return label.to(torch.uint8), confidence


def upsampled_confusion(logits: Tensor, labels: Tensor, align_corners: bool = True) -> Tensor:
    """Full-size logits, arg-max, `bincount`; labels uint8 [B, H, W]; the result is int64 [C, C]."""
    num_classes = logits.shape[1]
    full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=align_corners)
    truth, prediction = labels.long().flatten(), full.argmax(1).flatten()
    counted = truth < num_classes
    cells = truth[counted] * num_classes + prediction[counted]
    return torch.bincount(cells, minlength=num_classes**2).view(num_classes, num_classes)


def batch_norm_a_group(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_groups: int,
    residual: Tensor | None = None,
) -> Tensor:
    """torch's BatchNorm in training mode a group of images, + residual, ReLU."""
    groups = [
        F.batch_norm(group, running_mean, running_var, weight, bias, training=True) for group in x.chunk(num_groups)
    ]
    y = groups[0] if num_groups == 1 else torch.cat(groups)
    return F.relu(y if residual is None else y + residual, inplace=True)


def shifted_sum(
    features: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], dilations: Sequence[int]
) -> Tensor:
    """Dilated 3×3 convolutions [C, in, 3, 3], added, as one product with a column a class and tap, then 33 shifts."""
    columns, shifts = [torch.stack([weight[:, :, 1, 1] for weight in weights]).sum(0)], [(0, 0)]
    for weight, dilation in zip(weights, dilations, strict=True):
        for row, column in ((row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1)):
            columns.append(weight[:, :, row, column])
            shifts.append(((row - 1) * dilation, (column - 1) * dilation))
    taps = F.conv2d(features, torch.cat(columns).to(features.dtype)[:, :, None, None])
    logits = torch.stack(list(biases)).sum(0)[:, None, None]
    for tap, (down, right) in zip(taps.float().chunk(len(shifts), 1), shifts, strict=True):
        logits = logits + F.pad(tap, (-right, right, -down, down))
    return logits
