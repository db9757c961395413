"""DeepLab-v2's classifier, a sum of dilated convolutions, and the same sum as one matrix product.

Dimensions: B images, C classes, H' W' positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ASPP(nn.Module):
    """Sum of 3×3 convolutions with bias, one a dilation, from features to classes (protocol row 17).

    With `gemm` the features go once through a 1×1 convolution that has an output a class and tap (all
    branches share the centre: 33 taps for four branches), and each tap's output is added where the
    tap points. The features are then read once and not once a branch; rounding aside nothing changes.
    """

    gemm: bool

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

    def forward(self, features: Tensor) -> Tensor:
        """float [B, in_channels, H', W'] → float [B, C, H', W']."""
        return self._shifted_sum(features) if self.gemm else self._convolved(features)

    def _convolved(self, features: Tensor) -> Tensor:
        first, *others = self._convolutions()
        logits: Tensor = first(features)
        for branch in others:
            logits = logits + branch(features)
        return logits

    def _shifted_sum(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        convolutions = self._convolutions()
        weights = [reduce(torch.add, [one.weight[:, :, 1, 1] for one in convolutions])]
        shifts = [(0, 0)]
        for convolution, dilation in zip(convolutions, self.dilations, strict=True):
            for row, column in _AROUND:
                down, right = (row - 1) * dilation, (column - 1) * dilation
                if abs(down) < height and abs(right) < width:  # farther taps see padding alone
                    weights.append(convolution.weight[:, :, row, column])
                    shifts.append((down, right))
        taps = F.conv2d(features, torch.cat(weights)[:, :, None, None])
        taps = taps.view(-1, len(shifts), self.num_classes, height, width)
        # Each tap is rounded to the product's type; their sum must not be, tap by tap.
        wide = torch.promote_types(taps.dtype, torch.float32)
        biases = [one.bias for one in convolutions if one.bias is not None]
        logits = reduce(torch.add, biases).to(wide)[:, None, None]
        for tap, (down, right) in zip(taps.unbind(1), shifts, strict=True):
            logits = logits + F.pad(tap.to(wide), (-right, right, -down, down))
        return logits.to(taps.dtype)

    def _convolutions(self) -> list[nn.Conv2d]:
        return [branch for branch in self.branches if isinstance(branch, nn.Conv2d)]


_AROUND = tuple((row, column) for row in range(3) for column in range(3) if (row, column) != (1, 1))
