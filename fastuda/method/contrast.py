"""The contrastive losses between two views' logits: PiCL and ProCL (paper eq. 8-11; protocol rows 13, 14)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.distributed.collectives import gather, num_ranks, own_rank
from fastuda.method.prototypes import prototypes
from fastuda.method.samples import counted
from fastuda.recipe import Contrast
from fastuda_kernels.pixel_contrast import pixel_contrast
from fastuda_kernels.pixel_contrast.gathered import contrast_among


def pixel_loss(first: Tensor, second: Tensor, scale: float, *, gathered: bool = False) -> Tensor:
    """PiCL (paper eq. 11; protocol row 13) between two views' logits [B, C, H', W'].

    `gathered`: the rows of the other ranks' images in the same places of their batches are negatives, too.
    """
    return _contrast(_rows(first), _rows(second), scale, None, gathered)


def prototype_loss(
    first: Tensor, second: Tensor, labels: Tensor, settings: Contrast, *, gathered: bool = False
) -> Tensor:
    """ProCL (paper eq. 8-10; protocol row 14) between two views' logits [B, C, H', W'].

    `labels` uint8 [B, H, W] are those of both views, 255 where a pixel must not enter a prototype. `gathered` is as in
    `pixel_loss`.
    """
    those = counted(settings.prototype_samples)
    first_rows, valid = prototypes(first[those], labels[those])
    second_rows, _ = prototypes(second[those], labels[those])
    loss = _contrast(first_rows, second_rows, settings.prototype_scale, valid, gathered)
    return loss / len(labels) if settings.prototype_samples == "first" else loss


def _contrast(first: Tensor, second: Tensor, scale: float, valid: Tensor | None, gathered: bool) -> Tensor:
    """Of the rows [B, N, C] of two views' logits, those among `valid` [B, N]."""
    if not gathered or num_ranks() == 1:
        return pixel_contrast(first, second, scale, from_logits=True, valid=valid)
    wide = torch.promote_types(first.dtype, torch.float32)
    own = torch.cat([first, second], 1).softmax(-1, dtype=wide)
    known = None if valid is None else _of_all_ranks(torch.cat([valid, valid], 1))
    return contrast_among(own, _of_all_ranks(own), own_rank() * own.shape[1], scale, known)


def _of_all_ranks(rows: Tensor) -> Tensor:
    """[B, N, …] → [B, R · N, …]: each image's rows, rank by rank."""
    return gather(rows).transpose(0, 1).flatten(1, 2)


def _rows(logits: Tensor) -> Tensor:
    return logits.flatten(2).transpose(1, 2)
