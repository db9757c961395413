"""The part of an image that a network of two scales sees at full size, and what it says of that part alone.

Dimensions: B images, C classes, H W pixels, S pixels of the part's side, S' positions of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Detail(NamedTuple):
    """A square that all images of a pass share (HRDA's detail crop; Hoyer et al., ECCV '22)."""

    logits: Tensor
    """float [B, C, S', S']: class scores before they are fused with those of the whole image."""
    place: Tensor
    """int64 [2] on the images' device: its first row and its first column, pixels."""
    side: int
    """S."""
    weight: float
    """λ_d: share of the square's own cross-entropy in a loss."""

    def cut(self, pixels: Tensor) -> Tensor:
        """[..., H, W] → [..., S, S]: the square alone. No gradient need come back."""
        return square(pixels, self.place, self.side)

    def part(self, samples: slice) -> Detail:
        """That of these samples."""
        return self._replace(logits=self.logits[samples])

    def chunk(self, number: int) -> list[Detail]:
        """Those of `number` equal batches that shared a pass, and so the place."""
        return [self._replace(logits=logits) for logits in self.logits.chunk(number)]


def square(pixels: Tensor, place: Tensor, side: int) -> Tensor:
    """[..., H, W] → [..., side, side] from `place`, int64 [2], on; the host never learns where that is."""
    rows, columns = (start + torch.arange(side, device=place.device) for start in place)
    return pixels.index_select(-2, rows).index_select(-1, columns)


def framed(values: Tensor, place: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] → [B, C, *size] with zeros around it; `place`, int64 [2], is where it begins.

    Forward and backward write every element once, so that both are the same at every run.
    """
    rows, columns = (
        start + torch.arange(length, device=place.device) for start, length in zip(place, values.shape[2:], strict=True)
    )
    across = values.new_zeros((*values.shape[:3], size[1])).index_copy(3, columns, values)
    return values.new_zeros((*values.shape[:2], *size)).index_copy(2, rows, across)
