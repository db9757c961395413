"""How right a prediction is where classes meet: trimap mIoU and the boundary F-score.

Paper section 1 and figure 2 say that wrong pixels lie near boundaries; these scores measure it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastuda.classes import IGNORE_INDEX
from fastuda.metrics.boundary_map import boundary_pixels, squared_distance
from fastuda.metrics.iou import Scores, mean_of_known, plain
from fastuda_kernels.checks import check_tensor

RADII = (1, 3, 5, 9)
"""Widths of the trimap bands and tolerances of the F-score, pixels."""


@dataclass(frozen=True)
class FScore:
    """Boundary F-score at one tolerance; percent, NaN without a value."""

    by_class: dict[str, float]
    """Mean over the images where prediction or label has a boundary of the class."""
    mean: float
    """Mean of `by_class` over the classes with a value."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, rounded to 1e-4; None where there is no value."""
        return {"mean": plain(self.mean), "classes": {name: plain(value) for name, value in self.by_class.items()}}


@dataclass(frozen=True)
class BoundaryScores:
    """What one evaluation says of the pixels where classes meet."""

    trimap: dict[int, Scores]
    """Scores of the pixels in a band around the label's boundaries, by the band's radius in pixels."""
    f_score: dict[int, FScore]
    """By tolerance in pixels."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, rounded to 1e-4; None where there is no value; radii are text."""
        return {
            "trimap": {str(radius): one.to_json() for radius, one in self.trimap.items()},
            "f_score": {str(radius): one.to_json() for radius, one in self.f_score.items()},
        }


_F_STEPS = 2**40
"""F-scores are summed as whole numbers of this part: the sum is then the same in whatever order images come."""


class BoundaryMeter:
    """Adds images up to `BoundaryScores`, in memory that does not grow with them.

    Trimap mIoU: IoU over the pixels of `boundary_band` of the label. F-score (Csurka et al. 2013, "What is
    a good evaluation measure for semantic segmentation?"): of the boundary pixels of a class's region in
    the prediction, the share within the tolerance of one in the label, and the reverse, as harmonic mean
    an image and class; the mean over the images where either has a boundary of it, then over classes.
    Pixels whose label is ignored are ignored in the prediction too.
    """

    def __init__(self, num_classes: int, device: torch.device, radii: Sequence[int] = RADII) -> None:
        """`radii` ascend and are at least 1; train ids are below `num_classes`, at most 255. Else ValueError."""
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes must be from 1 to {IGNORE_INDEX}, got {num_classes}")
        if not radii or radii[0] < 1 or sorted(set(radii)) != list(radii):
            raise ValueError(f"radii must be at least 1 and ascend, got {list(radii)}")
        self._num_classes = num_classes
        self._radii = tuple(radii)
        rings, ids = len(radii) + 1, num_classes + 1
        # By ring around the boundary, label, prediction; the last of each is what no band or class has.
        self._counts = torch.zeros(rings, ids, ids, dtype=torch.int64, device=device)
        self._f_sum = torch.zeros(num_classes, len(radii), dtype=torch.int64, device=device)
        self._num_images = torch.zeros(num_classes, dtype=torch.int64, device=device)

    def add(self, prediction: Tensor, label: Tensor) -> None:
        """Count one image: train ids uint8 [H, W] each, on the meter's device.

        Labels from `num_classes` on are ignored. Raises ValueError or TypeError for other shapes, types or devices.
        """
        device = self._counts.device
        check_tensor("prediction", prediction, shape=(None, None), dtypes=(torch.uint8,), device=device)
        check_tensor("label", label, shape=prediction.shape, dtypes=(torch.uint8,), device=device)
        none = self._num_classes
        label = label.clamp(max=none)
        maps = torch.stack([prediction.clamp(max=none).masked_fill_(label == none, none), label])
        boundary = boundary_pixels(maps, none)
        self._add_trimap(maps, boundary[1])
        self._add_f_scores(torch.where(boundary, maps, none))

    def _add_trimap(self, maps: Tensor, boundary: Tensor) -> None:
        distance = squared_distance(boundary, self._radii[-1] - 1)
        ring = _ring(distance, [(radius - 1) ** 2 for radius in self._radii])
        prediction, label = maps
        _count(self._counts, ring, label, prediction)

    def _add_f_scores(self, edges: Tensor) -> None:
        """`edges` uint8 [2, H, W]: the class of each boundary pixel of prediction and label, elsewhere no class."""
        limit = self._radii[-1]
        nearest = torch.zeros((), dtype=torch.uint8, device=edges.device)
        for index in self._occurring(edges):
            own = edges == index
            # Every boundary pixel has one class, so the sum holds its distance to that.
            nearest = nearest + squared_distance(own.flip(0), limit) * own
        ring = _ring(nearest, [radius**2 for radius in self._radii])
        counts = self._counts.new_zeros(2, self._num_classes + 1, len(self._radii) + 1)
        source = torch.arange(2, device=edges.device)[:, None, None]
        _count(counts, source, edges, ring)
        counts = counts[:, :-1]
        found, total = counts.cumsum(-1)[..., :-1], counts.sum(-1, keepdim=True)
        precision, recall = found / total.clamp(min=1).double()
        harmonic = 2 * precision * recall / (precision + recall)
        self._f_sum += (harmonic.nan_to_num(0) * _F_STEPS).round().long()
        self._num_images += (total.sum(0) > 0).squeeze(-1)

    def _occurring(self, edges: Tensor) -> Sequence[int]:
        """Classes to look at: those that occur, or all on a GPU, which would have to be waited for."""
        if edges.is_cuda:
            return range(self._num_classes)
        occurs = torch.bincount(edges.flatten(), minlength=self._num_classes + 1) > 0
        return [index for index in range(self._num_classes) if occurs[index]]

    @property
    def sums(self) -> list[Tensor]:
        """All that was counted, int64: meters of parts of a split may be added, in whatever order."""
        return [self._counts, self._f_sum, self._num_images]

    def result(
        self, names: tuple[str, ...], protocol: str = "full", subsets: Mapping[str, tuple[str, ...]] | None = None
    ) -> BoundaryScores:
        """Scores so far; waits for the device. `protocol` and `subsets` are those of `Scores.of`.

        Raises ValueError when there are not `num_classes` names, or a prediction was no train id.
        """
        counts = self._counts.cpu().numpy()
        if len(names) != self._num_classes:
            raise ValueError(f"{self._num_classes} classes were counted, but there are {len(names)} class names")
        if counts[:, :-1, -1].any():
            raise ValueError(f"a prediction holds values that are no train id below {self._num_classes}")
        bands = counts[:-1, :-1, :-1].cumsum(0)
        f_scores = _mean_over_images(self._f_sum.cpu().numpy() / _F_STEPS, self._num_images.cpu().numpy())
        return BoundaryScores(
            trimap={
                radius: Scores.of(confusion, names, protocol, subsets)
                for radius, confusion in zip(self._radii, bands, strict=True)
            },
            f_score={
                radius: FScore(dict(zip(names, by_class.tolist(), strict=True)), mean_of_known(by_class))
                for radius, by_class in zip(self._radii, f_scores.T, strict=True)
            },
        )


def _ring(squared: Tensor, limits: list[int]) -> Tensor:
    """Index uint8 [..., H, W] of the first of the ascending squared limits that holds; their number if none does."""
    ring = torch.zeros_like(squared, dtype=torch.uint8)
    for limit in limits:
        ring += squared > limit
    return ring


def _count(counts: Tensor, *indices: Tensor) -> None:
    """Add one to `counts` int64 at every pixel: `indices` are integers [..., H, W], one tensor a dimension."""
    flat = indices[0].int()
    for index, size in zip(indices[1:], counts.shape[1:], strict=True):
        flat = flat * size + index
    flat = flat.flatten().long()
    counts.view(-1).scatter_add_(0, flat, counts.new_ones(1).expand_as(flat))


def _mean_over_images(sums: NDArray[np.float64], num_images: NDArray[np.int64]) -> NDArray[np.float64]:
    """Percent [C, R]; NaN for a class without a boundary in any image."""
    images = np.broadcast_to(num_images[:, None], sums.shape)
    return 100 * np.divide(sums, images, out=np.full_like(sums, np.nan), where=images > 0)
