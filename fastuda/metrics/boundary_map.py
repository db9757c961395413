"""Where classes meet: boundary pixels of a label map, distances to them, bands around them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastuda.classes import IGNORE_INDEX


def boundary_pixels(labels: Tensor, num_classes: int = IGNORE_INDEX) -> Tensor:
    """Pixels with a 4-neighbour of another class (paper section 1: where "different categories are connected").

    `labels` are train ids uint8 [..., H, W]; values from `num_classes` on are ignored: such a pixel is
    no boundary, and makes none of its neighbours one. Returns bool [..., H, W].
    """
    counted = labels < num_classes
    boundary = torch.zeros_like(counted)
    for dim in (-2, -1):
        length = max(labels.shape[dim] - 1, 0)
        first, second = labels.narrow(dim, 0, length), labels.narrow(dim, labels.shape[dim] - length, length)
        differ = first != second
        differ &= counted.narrow(dim, 0, length)
        differ &= counted.narrow(dim, labels.shape[dim] - length, length)
        boundary.narrow(dim, 0, length).logical_or_(differ)
        boundary.narrow(dim, labels.shape[dim] - length, length).logical_or_(differ)
    return boundary


def squared_distance(mask: Tensor, limit: int) -> Tensor:
    """Squared Euclidean distance of every pixel to the nearest pixel of `mask`, exact up to `limit` pixels.

    `mask` is bool [..., H, W]. Returns integers [..., H, W] (uint8 for limits up to 10, int16 up to 127,
    then int32), limit² + 1 wherever the distance is greater or the mask is empty. Raises ValueError for a
    limit below 0.
    """
    if limit < 0:
        raise ValueError(f"limit must be at least 0 pixels, got {limit}")
    # The largest sum below is (limit + 1)² + limit².
    dtype = torch.uint8 if limit <= 10 else torch.int16 if limit <= 127 else torch.int32
    vertical = _vertical_distance(mask, limit, dtype)
    nearest = vertical * vertical
    beside = nearest.clone()
    for step in range(1, min(limit, mask.shape[-1] - 1) + 1):
        # From the square of step - 1 to the square of step.
        beside += 2 * step - 1
        for here, there in _shifted(nearest, beside, -1, step):
            torch.minimum(here, there, out=here)
    return nearest.clamp_(max=limit * limit + 1)


def _vertical_distance(mask: Tensor, limit: int, dtype: torch.dtype) -> Tensor:
    """Distance [..., H, W] within each column, limit + 1 where it is greater."""
    distance = (~mask).to(dtype) * (limit + 1)
    height = mask.shape[-2]
    step = 1
    # Steps of 1, 2, 4, … add up to any distance, so their number grows with the limit's logarithm.
    while step <= min(limit, height - 1):
        for here, there in _shifted(distance, distance, -2, step):
            torch.minimum(here, there + step, out=here)
        step *= 2
    return distance


def _shifted(target: Tensor, source: Tensor, dim: int, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of `target` and, of the same shape, of `source` `step` pixels before and after along `dim`."""
    length = target.shape[dim] - step
    yield target.narrow(dim, step, length), source.narrow(dim, 0, length)
    yield target.narrow(dim, 0, length), source.narrow(dim, step, length)


def boundary_band(labels: Tensor, radius: int, num_classes: int = IGNORE_INDEX) -> Tensor:
    """The trimap band: counted pixels at most `radius` - 1 pixels from a boundary pixel, bool [..., H, W].

    `labels` as in `boundary_pixels`; a radius of 1 is the boundary pixels themselves. Raises ValueError
    for a radius below 1.
    """
    distance = squared_distance(boundary_pixels(labels, num_classes), radius - 1)
    return (distance <= (radius - 1) ** 2) & (labels < num_classes)
