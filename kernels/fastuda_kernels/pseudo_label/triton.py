"""Labels from low-resolution logits in Triton: each pixel reads its four neighbours, and one pass is all there is.

B images, C classes, h w low resolution, H W output.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastuda_kernels.operators import kernel_op, launch, wrap_triton

_ELEMENTS = 1024
_ROWS_A_PROGRAM = 8
_MAX_HISTOGRAM = 1024


@triton.jit
def _centre(pixel, num, start, extent, ratio, low, ALIGN_CORNERS: tl.constexpr):
    """Low-resolution coordinate of an output pixel's centre; `ratio` as `_ratio` makes it."""
    in_view = start + (pixel.to(tl.float32) + 0.5) * (extent / num)
    coordinate = (in_view - 0.5) * ratio if ALIGN_CORNERS else in_view * ratio - 0.5
    return tl.minimum(tl.maximum(coordinate, 0.0), (low - 1) * 1.0)


@triton.jit
def _sample(logits_ptr, y, x, c, inside, h, w, stride_class, stride_y, stride_x):
    """Outputs at coordinates y (scalar) and x [P], interpolated bilinearly: fp32 [P, classes]; -inf outside."""
    y0, x0 = y.to(tl.int32), x.to(tl.int32)
    fy, fx = y - y0.to(tl.float32), (x - x0.to(tl.float32))[:, None]
    y1, x1 = tl.minimum(y0 + 1, h - 1), tl.minimum(x0 + 1, w - 1)
    above = logits_ptr + y0.to(tl.int64) * stride_y + c[None, :] * stride_class
    below = logits_ptr + y1.to(tl.int64) * stride_y + c[None, :] * stride_class
    at0, at1 = (x0 * stride_x)[:, None], (x1 * stride_x)[:, None]
    z00 = tl.load(above + at0, mask=inside, other=0.0).to(tl.float32)
    z01 = tl.load(above + at1, mask=inside, other=0.0).to(tl.float32)
    z10 = tl.load(below + at0, mask=inside, other=0.0).to(tl.float32)
    z11 = tl.load(below + at1, mask=inside, other=0.0).to(tl.float32)
    z = (1 - fx) * ((1 - fy) * z00 + fy * z10) + fx * ((1 - fy) * z01 + fy * z11)
    return tl.where(inside, z, float("-inf"))


@triton.jit
def _largest(z, C: tl.constexpr):
    """The class of the largest value, int32; held below C, since NaN lets a padding class win."""
    return tl.minimum(tl.argmax(z, 1).to(tl.int32), C - 1)


@triton.jit
def _softmax(z):
    e = tl.exp(z - tl.max(z, 1)[:, None])
    return e / tl.sum(e, 1)[:, None]


@triton.jit
def pseudo_label_kernel(
    logits_ptr,
    auxiliary_ptr,
    boxes_ptr,
    flip_ptr,
    label_ptr,
    confidence_ptr,
    h,
    w,
    H,
    W,
    view_ratio_y,
    view_ratio_x,
    stride_image,
    stride_class,
    stride_y,
    stride_x,
    auxiliary_stride_image,
    auxiliary_stride_class,
    auxiliary_stride_y,
    auxiliary_stride_x,
    C: tl.constexpr,
    HAS_AUXILIARY: tl.constexpr,
    HAS_BOXES: tl.constexpr,
    HAS_FLIP: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Label uint8 and confidence fp32 of a run of pixels in one row."""
    row, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    column = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.arange(0, BLOCK_C)
    inside = (column < W)[:, None] & (c < C)[None, :]
    top, left, height, width = 0.0, 0.0, H * 1.0, W * 1.0
    if HAS_BOXES:
        top, left = tl.load(boxes_ptr + image * 4), tl.load(boxes_ptr + image * 4 + 1)
        height, width = tl.load(boxes_ptr + image * 4 + 2), tl.load(boxes_ptr + image * 4 + 3)
    source_column = column
    if HAS_FLIP:
        source_column = tl.where(tl.load(flip_ptr + image) != 0, W - 1 - column, column)
    y = _centre(row, H, top, height, view_ratio_y, h, ALIGN_CORNERS)
    x = _centre(source_column, W, left, width, view_ratio_x, w, ALIGN_CORNERS)
    own = logits_ptr + image * stride_image
    z = _sample(own, y, x, c, inside, h, w, stride_class, stride_y, stride_x)
    # Columns outside have no logits at all; zeros keep their softmax free of NaN.
    z = tl.where((column < W)[:, None], z, 0.0)
    probability = _softmax(z)
    if HAS_AUXILIARY:
        other = auxiliary_ptr + image * auxiliary_stride_image
        second = _sample(other, y, x, c, inside, h, w, auxiliary_stride_class, auxiliary_stride_y, auxiliary_stride_x)
        probability = (probability + _softmax(tl.where((column < W)[:, None], second, 0.0))) / 2
    at = (image * H + row) * W + column
    tl.store(label_ptr + at, _largest(probability, C).to(tl.uint8), mask=column < W)
    tl.store(confidence_ptr + at, tl.max(probability, 1), mask=column < W)


@triton.jit
def confusion_kernel(
    logits_ptr,
    labels_ptr,
    counts_ptr,
    h,
    w,
    H,
    W,
    view_ratio_y,
    view_ratio_x,
    stride_image,
    stride_class,
    stride_y,
    stride_x,
    ignore_index,
    C: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    BINS: tl.constexpr,
    USE_HISTOGRAM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Count (class, prediction) cells of a run of pixels in a few rows; integer sums do not depend on their order."""
    image = tl.program_id(2).to(tl.int64)
    column = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.arange(0, BLOCK_C)
    inside = (column < W)[:, None] & (c < C)[None, :]
    x = _centre(column, W, 0.0, W * 1.0, view_ratio_x, w, ALIGN_CORNERS)
    own = logits_ptr + image * stride_image
    if USE_HISTOGRAM:
        counts = tl.zeros((BINS,), tl.int32)
    for step in range(ROWS):
        row = tl.program_id(1) * ROWS + step
        y = _centre(row, H, 0.0, H * 1.0, view_ratio_y, h, ALIGN_CORNERS)
        z = _sample(own, y, x, c, inside, h, w, stride_class, stride_y, stride_x)
        real = (column < W) & (tl.zeros_like(column) + row < H)
        label = tl.load(labels_ptr + (image * H + row) * W + column, mask=real, other=0).to(tl.int32)
        counted = real & (label != ignore_index) & (label < C)
        cell = label * C + _largest(z, C)
        if USE_HISTOGRAM:
            counts += tl.histogram(tl.where(counted, cell, C * C), BINS)
        else:
            tl.atomic_add(counts_ptr + cell, tl.full((BLOCK_P,), 1, tl.int64), mask=counted)
    if USE_HISTOGRAM:
        bins = tl.arange(0, BINS)
        tl.atomic_add(counts_ptr + bins, counts.to(tl.int64), mask=(bins < C * C) & (counts > 0))


def _blocks(num_classes: int) -> dict[str, int]:
    """Tile of pixels by classes that a program holds in registers."""
    block_c = triton.next_power_of_2(num_classes)
    return {"BLOCK_P": min(128, max(4, _ELEMENTS // block_c)), "BLOCK_C": block_c}


def _ratio(low: int, view: int, align_corners: bool) -> float:
    """Low-resolution positions a pixel of the view, from corner to corner or from edge to edge."""
    return (low - 1) / max(view - 1, 1) if align_corners else low / view


def _label_shapes(
    logits: Tensor, height: int, width: int, auxiliary: Tensor | None,
    view_height: int, view_width: int, boxes: Tensor | None, flip: Tensor | None, align_corners: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    size = (logits.shape[0], height, width)
    return logits.new_empty(size, dtype=torch.uint8), logits.new_empty(size, dtype=torch.float32)


@kernel_op("fastuda::pseudo_label", _label_shapes)
def label_of_upsampled(
    logits: Tensor, height: int, width: int, auxiliary: Tensor | None,
    view_height: int, view_width: int, boxes: Tensor | None, flip: Tensor | None, align_corners: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Label uint8 and confidence fp32, [B, height, width]."""
    label, confidence = _label_shapes(
        logits, height, width, auxiliary, view_height, view_width, boxes, flip, align_corners
    )
    num_images, num_classes, h, w = logits.shape
    second = logits if auxiliary is None else auxiliary
    blocks = _blocks(num_classes)
    launch(
        wrap_triton(pseudo_label_kernel),
        (triton.cdiv(width, blocks["BLOCK_P"]), height, num_images),
        logits, second, confidence if boxes is None else boxes, label if flip is None else flip, label, confidence,
        h, w, height, width, _ratio(h, view_height, align_corners), _ratio(w, view_width, align_corners),
        *logits.stride(), *second.stride(),
        C=num_classes, HAS_AUXILIARY=auxiliary is not None, HAS_BOXES=boxes is not None, HAS_FLIP=flip is not None,
        ALIGN_CORNERS=align_corners, **blocks,
    )  # fmt: skip
    return label, confidence


def _confusion_shapes(logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool) -> Tensor:
    return logits.new_empty((logits.shape[1], logits.shape[1]), dtype=torch.int64)


@kernel_op("fastuda::argmax_confusion", _confusion_shapes)
def confusion_of_upsampled(logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool) -> Tensor:
    """int64 [C, C] of class by prediction."""
    num_images, num_classes, h, w = logits.shape
    height, width = labels.shape[-2:]
    counts = torch.zeros((num_classes, num_classes), dtype=torch.int64, device=logits.device)
    bins, blocks = triton.next_power_of_2(num_classes * num_classes + 1), _blocks(num_classes)
    launch(
        wrap_triton(confusion_kernel),
        (triton.cdiv(width, blocks["BLOCK_P"]), triton.cdiv(height, _ROWS_A_PROGRAM), num_images),
        logits, labels, counts, h, w, height, width,
        _ratio(h, height, align_corners), _ratio(w, width, align_corners), *logits.stride(), ignore_index,
        C=num_classes, ALIGN_CORNERS=align_corners, BINS=bins, USE_HISTOGRAM=bins <= _MAX_HISTOGRAM,
        ROWS=_ROWS_A_PROGRAM, **blocks,
    )  # fmt: skip
    return counts


def pseudo_label(
    logits: Tensor,
    size: tuple[int, int],
    auxiliary: Tensor | None,
    view_size: tuple[int, int] | None,
    boxes: Tensor | None,
    flip: Tensor | None,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """What `fastuda_kernels.pseudo_label.pseudo_label` returns, whose checks the arguments have passed."""
    view = size if boxes is None or view_size is None else view_size
    crops = None if boxes is None else boxes.float().contiguous()
    flips = None if flip is None else flip.contiguous()
    second = None if auxiliary is None else auxiliary.detach()
    label, confidence = label_of_upsampled(logits.detach(), *size, second, *view, crops, flips, align_corners)
    return label, confidence


def argmax_confusion(logits: Tensor, labels: Tensor, ignore_index: int, align_corners: bool) -> Tensor:
    """What `fastuda_kernels.pseudo_label.argmax_confusion` returns, whose checks the arguments have passed."""
    counts: Tensor = confusion_of_upsampled(logits.detach(), labels.contiguous(), ignore_index, align_corners)
    return counts
