"""What pseudo-labels count: the share of them that is sure, and nothing at the margins of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.method.pseudo_labels import PseudoLabels
from fastuda.recipe import Quality, Recipe


def pseudo_weight(pseudo: PseudoLabels, target: DomainBatch, recipe: Recipe) -> Tensor | None:
    """float32 [B, h, w] of the target crops' labels, as DACS and DAFormer weigh them; None where `quality` is off.

    The share of pixels whose confidence is at least `quality.tau`, in its own crop or in all of the batch; 0 where the
    crop shows the margins of the view.
    """
    settings = recipe.quality
    if not settings.enabled:
        return None
    sure = (pseudo.confidence >= settings.tau).float()
    share = sure.mean((1, 2), keepdim=True) if settings.per == "image" else sure.mean().view(1, 1, 1)
    return share * _inside(target, settings, recipe.views.target_size)


def _inside(target: DomainBatch, settings: Quality, view_size: tuple[int, int]) -> Tensor:
    """bool [B, h, w]: where the middle of a crop's pixel lies off the view's margins."""
    height, width = target.weak.shape[1:3]
    rows = _places(target.boxes[:, 0], target.boxes[:, 2], height)
    columns = _places(target.boxes[:, 1], target.boxes[:, 3], width)
    inside_rows = (rows >= settings.top) & (rows < view_size[1] - settings.bottom)
    inside_columns = (columns >= settings.sides) & (columns < view_size[0] - settings.sides)
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def _places(start: Tensor, extent: Tensor, count: int) -> Tensor:
    """float32 [B, count]: the middles of a crop's rows or columns, in view pixels."""
    middles = (torch.arange(count, device=start.device) + 0.5) / count
    return start[:, None] + extent[:, None] * middles
