"""DeepLab-v2's classifier, a sum of dilated convolutions, and the same sum as one matrix product.

Dimensions: B images, C classes, T taps, K outputs of the product, H' W' positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TAPS_A_BRANCH = 9
_CENTRE = 4
_ALIGNMENT = 64
"""Outputs of the product come in whole tiles: 627 columns of bf16 rule out the libraries' fast kernels, 640 do not."""


class ASPP(nn.Module):
    """Sum of 3×3 convolutions with bias, one a dilation, from features to classes (protocol row 17).

    With `gemm` the features go once through a 1×1 convolution that has an output a class and tap (all
    branches share the centre: 33 taps for four branches), padded with zeros to whole tiles, and each
    position gathers what its taps point at. The features are then read once and not once a branch;
    rounding aside nothing changes.
    """

    gemm: bool
    shifts: Tensor
    """int64 [T, 2]: how far down and right each tap of the product looks, the centre first."""

    def __init__(self, in_channels: int, num_classes: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.gemm = False
        self.num_classes = num_classes
        self.dilations = tuple(dilations)
        self.branches = nn.ModuleList(nn.Conv2d(in_channels, num_classes, 3, 1, d, d) for d in dilations)
        for branch in self._convolutions():
            assert branch.bias is not None
            nn.init.normal_(branch.weight, 0, 0.01)
            nn.init.zeros_(branch.bias)
        around = [((tap // 3 - 1) * d, (tap % 3 - 1) * d) for d in dilations for tap in _AROUND]
        self.register_buffer("shifts", torch.tensor([(0, 0), *around]), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """float [B, in_channels, H', W'] → float [B, C, H', W']."""
        return self._product(features) if self.gemm else self._convolved(features)

    def _convolved(self, features: Tensor) -> Tensor:
        first, *others = self._convolutions()
        logits: Tensor = first(features)
        for branch in others:
            logits = logits + branch(features)
        return logits

    def _product(self, features: Tensor) -> Tensor:
        taps = F.conv2d(features, self._columns()[:, :, None, None])
        biases = reduce(torch.add, [one.bias for one in self._convolutions() if one.bias is not None])
        summed: Tensor = _GatheredSum.apply(taps, self.shifts, self.num_classes)  # type: ignore[no-untyped-call]
        return (summed + biases.to(summed.dtype)[:, None, None]).to(taps.dtype)

    def _columns(self) -> Tensor:
        """The branches' weights as one matrix [K, in_channels], rows in the order of `shifts`, then of classes."""
        stacked = torch.stack([one.weight.flatten(2) for one in self._convolutions()])
        centre = stacked[..., _CENTRE].sum(0)
        around = torch.cat([stacked[..., :_CENTRE], stacked[..., _CENTRE + 1 :]], dim=-1)
        around = around.permute(0, 3, 1, 2).flatten(0, 2)
        missing = -(len(centre) + len(around)) % _ALIGNMENT
        return torch.cat([centre, around, centre.new_zeros(missing, centre.shape[1])])

    def _convolutions(self) -> list[nn.Conv2d]:
        return [branch for branch in self.branches if isinstance(branch, nn.Conv2d)]


class _GatheredSum(torch.autograd.Function):
    """Each position's sum of the taps that point at it; each tap's gradient is the sum's at the place it pointed from.

    Both ways gather, so that neither adds to one place from many: the backward of an index would, with atomics.
    """

    @staticmethod
    def forward(ctx: Any, taps: Tensor, shifts: Tensor, num_classes: int) -> Tensor:
        """[B, K, H', W'] with K at least T·C → [B, C, H', W'], at least fp32: what is rounded is not the sum."""
        ctx.save_for_backward(shifts)
        ctx.num_outputs, ctx.dtype = taps.shape[1], taps.dtype
        used = taps.permute(0, 2, 3, 1)[..., : len(shifts) * num_classes]
        used = used.reshape(*used.shape[:3], len(shifts), num_classes)
        rows, columns, inside = _places(shifts, taps.shape[2], taps.shape[3])
        tap = torch.arange(len(shifts), device=taps.device)
        found = used[:, rows[:, :, None], columns[:, None, :], tap[:, None, None]]
        wide = found.to(torch.promote_types(taps.dtype, torch.float32))
        return torch.where(inside[..., None], wide, 0).sum(1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (shifts,) = ctx.saved_tensors
        (gradient,) = upstream
        rows, columns, inside = _places(-shifts, gradient.shape[2], gradient.shape[3])
        found = gradient.to(ctx.dtype).permute(0, 2, 3, 1)[:, rows[:, :, None], columns[:, None, :]]
        of_taps = torch.where(inside[..., None], found, 0).permute(0, 2, 3, 1, 4).flatten(3)
        return F.pad(of_taps, (0, ctx.num_outputs - of_taps.shape[3])).permute(0, 3, 1, 2), None, None


def _places(shifts: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [T, H'] and columns [T, W'] that each shift looks at, held within the map; bool [T, H', W']: it is there."""
    rows = torch.arange(height, device=shifts.device) + shifts[:, :1]
    columns = torch.arange(width, device=shifts.device) + shifts[:, 1:]
    row_inside, column_inside = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    inside = row_inside[:, :, None] & column_inside[:, None, :]
    return rows.clamp(0, height - 1), columns.clamp(0, width - 1), inside


_AROUND = tuple(tap for tap in range(_TAPS_A_BRANCH) if tap != _CENTRE)
