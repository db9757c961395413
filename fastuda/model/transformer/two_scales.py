"""HRDA's two scales (Hoyer et al., ECCV '22): the whole image at half its size and details of it at their own.

Dimensions: B images, C classes, D features, H W pixels, H' W' positions of the answer, half as many of the context's
along each side, S pixels of a detail's side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastuda.errors import UsageError
from fastuda.model.detail import Detail, framed, square
from fastuda.model.segmenter import Outputs
from fastuda.model.transformer.heads.head import Head, upsampled
from fastuda.model.windows import starts

Encode = Callable[[Tensor], list[Tensor]]


class TwoScales(nn.Module):
    """The attention that says, a class at a time, how much of the answer is the detail's and how much the context's.

    In train mode a pass has one detail, at a place that torch's generator draws for all of its images, and the
    attention is 0 outside it. Else details slide over the whole image by half their side, and their answers are
    averaged where they overlap; nothing is drawn. Views that share a pass share its place, and BatchNorm's running
    statistics see all of their contexts before all of their details.
    """

    def __init__(self, attention: Head, side: int, weight: float, stride: int) -> None:
        super().__init__()
        self.attention = attention
        self.side = side
        self.weight = weight
        self.stride = stride

    def forward(self, images: Tensor, encode: Encode, head: Head, *, features: bool = False) -> Outputs:
        """The answer to float [B, 3, H, W] normalised images, H and W multiples of two strides and at least S.

        `encode` gives an image's maps and `head` scores of those; logits come as float32 at least, `features` are
        the context's deepest. Raises UsageError for other sizes.
        """
        step, (height, width) = 2 * self.stride, images.shape[2:]
        if min(height, width) < self.side or height % step or width % step:
            raise UsageError(
                f"an image of {[width, height]}: with model.detail = {self.side} sides have to be multiples of {step}, "
                f"and {self.side} at least"
            )
        maps, size = encode(halved(images)), (height // self.stride, width // self.stride)
        context, detail = _wide(head(maps)), None
        if self.training:
            place = self.drawn_place(images)
            own = _wide(head(encode(square(images, place, self.side))))
            detail, details = Detail(own, place, self.side, self.weight), framed(own, place // self.stride, size)
        else:
            details = self._slid(images, encode, head, size)
        attention = _wide(self.attention(maps)).sigmoid()
        if self.training:
            positions = self.side // step
            inside = attention.new_ones(1, 1, positions, positions)
            seen = (attention.shape[2], attention.shape[3])
            attention = attention * framed(inside, place // step, seen)
        # In the authors' order: the context is weighed before it is enlarged, the detail after the attention is.
        fused = upsampled((1 - attention) * context, size) + upsampled(attention, size) * details
        return Outputs(fused, None, maps[-1] if features else None, align_corners=False, detail=detail)

    def drawn_place(self, images: Tensor) -> Tensor:
        """int64 [2]: the first row and column of a detail, in whole positions of the context."""
        step = 2 * self.stride
        drawn = [torch.randint((side - self.side) // step + 1, (), device=images.device) for side in images.shape[2:]]
        return torch.stack(drawn) * step

    def _slid(self, images: Tensor, encode: Encode, head: Head, size: tuple[int, int]) -> Tensor:
        """float [B, C, H', W']: the average of all details' answers at each position."""
        rows, columns = (starts(side, self.side, self.side // 2) for side in images.shape[2:])
        places = [(row, column) for row in rows for column in columns]
        windows = [images[:, :, row : row + self.side, column : column + self.side] for row, column in places]
        answers: Iterable[Tensor]
        if _together(head):
            answer = head(encode(torch.stack(windows, dim=1).flatten(0, 1)))
            answers = answer.unflatten(0, (len(images), len(windows))).unbind(1)
        else:
            answers = (head(encode(window)) for window in windows)
        total: Tensor | None = None
        times = torch.zeros(size, device=images.device)
        for (row, column), answer in zip(places, answers, strict=True):
            top, left = row // self.stride, column // self.stride
            there = (slice(top, top + answer.shape[2]), slice(left, left + answer.shape[3]))
            if total is None:
                total = _wide(answer).new_zeros((*answer.shape[:2], *size))
            total[..., there[0], there[1]] += answer
            times[there] += 1
        assert total is not None
        return total / times


def halved(images: Tensor) -> Tensor:
    """float [B, 3, H, W] → float [B, 3, H/2, W/2], bilinear: what the context is read from."""
    size = (images.shape[2] // 2, images.shape[3] // 2)
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _together(head: Head) -> bool:
    """Whether all details go through the network as one batch, which takes the memory of all of them.

    BatchNorm that reads its batch has to see them all at once, as the authors' teacher does; and code that is compiled
    would otherwise be as long as there are details.
    """
    reads_batch = any(isinstance(module, _BatchNorm) and module.training for module in head.modules())
    return reads_batch or torch.compiler.is_compiling()


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
