"""The contrastive losses between two views' logits: PiCL and ProCL (paper eq. 8-11; protocol rows 13, 14)."""

from __future__ import annotations

from torch import Tensor

from fastuda.method.prototypes import prototypes
from fastuda.method.samples import counted
from fastuda.recipe import Contrast
from fastuda_kernels.pixel_contrast import pixel_contrast


def pixel_loss(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """PiCL (paper eq. 11; protocol row 13) between two views' logits [B, C, H', W']."""
    return pixel_contrast(_rows(first), _rows(second), scale, from_logits=True)


def prototype_loss(first: Tensor, second: Tensor, labels: Tensor, settings: Contrast) -> Tensor:
    """ProCL (paper eq. 8-10; protocol row 14) between two views' logits [B, C, H', W'].

    `labels` uint8 [B, H, W] are those of both views, 255 where a pixel must not enter a prototype.
    """
    those = counted(settings.prototype_samples)
    first_rows, valid = prototypes(first[those], labels[those])
    second_rows, _ = prototypes(second[those], labels[those])
    loss = pixel_contrast(first_rows, second_rows, settings.prototype_scale, from_logits=True, valid=valid)
    return loss / len(labels) if settings.prototype_samples == "first" else loss


def _rows(logits: Tensor) -> Tensor:
    return logits.flatten(2).transpose(1, 2)
