"""Cross-entropy of upsampled logits in Triton: a full-size logit lives in registers only.

B images, C classes, h w low resolution, H W full size. The low-resolution positions span (h-1)·(w-1) patches; every
pixel lies in one of them and is interpolated from its four corners. A program takes a patch, goes through its
pixels, and leaves the patch's loss and the gradient of its four corners; a second kernel adds up the patches that
meet in each position. Nothing is added to by two programs, so two runs agree bit for bit. Where a pixel lies
is computed in integers, num / den: no rounding can move it into a neighbour's patch, or into two.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastuda_kernels.operators import kernel_op, launch, wrap_triton

_ELEMENTS_A_STEP = 1024
_PATCH_SIDE = 8
_POSITIONS_A_PROGRAM = 8


@triton.jit
def _first_pixel(patch, low, full, ALIGN_CORNERS: tl.constexpr):
    """The first pixel of an axis that lies in `patch` or behind it; `full` for the patch behind the last."""
    if ALIGN_CORNERS:
        first = tl.cdiv(patch * (full - 1), tl.maximum(low - 1, 1))
    else:
        first = tl.cdiv(2 * full * patch + full - low, 2 * low)
    first = tl.where(patch == 0, 0, first)
    return tl.where(patch >= tl.maximum(low - 1, 1), full, first)


@triton.jit
def _fraction(pixel, patch, low, full, ALIGN_CORNERS: tl.constexpr):
    """How far a pixel lies from the patch's first corner to its second, 0 to 1, fp32."""
    if ALIGN_CORNERS:
        den = tl.maximum(full - 1, 1)
        num = pixel * (low - 1)
    else:
        den = 2 * full
        num = tl.minimum(tl.maximum((2 * pixel + 1) * low - full, 0), den * (low - 1))
    return (num - patch * den).to(tl.float32) / den


@triton.jit
def _corner(logits_ptr, y, x, c, stride_y, stride_x, stride_class, C: tl.constexpr):
    at = logits_ptr + y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x + c * stride_class
    return tl.load(at, mask=c < C, other=0.0).to(tl.float32)[None, :]


@triton.jit
def upsample_cross_entropy_kernel(
    logits_ptr,
    labels_ptr,
    mask_ptr,
    weight_ptr,
    sums_ptr,
    corners_ptr,
    h,
    w,
    H,
    W,
    stride_image,
    stride_class,
    stride_y,
    stride_x,
    ignore_index,
    C: tl.constexpr,
    ALIGN_CORNERS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One patch: its sum of losses and number of counted pixels, and its corners' gradients [4, C]."""
    patch_x, patch_y, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    c = tl.arange(0, BLOCK_C)
    below, right = tl.minimum(patch_y + 1, h - 1), tl.minimum(patch_x + 1, w - 1)
    own = logits_ptr + image * stride_image
    z00 = _corner(own, patch_y, patch_x, c, stride_y, stride_x, stride_class, C)
    z01 = _corner(own, patch_y, right, c, stride_y, stride_x, stride_class, C)
    z10 = _corner(own, below, patch_x, c, stride_y, stride_x, stride_class, C)
    z11 = _corner(own, below, right, c, stride_y, stride_x, stride_class, C)

    loss = tl.zeros((BLOCK_Y * BLOCK_X,), tl.float32)
    count = tl.zeros((BLOCK_Y * BLOCK_X,), tl.float32)
    g00 = tl.zeros((BLOCK_C,), tl.float32)
    g01 = tl.zeros((BLOCK_C,), tl.float32)
    g10 = tl.zeros((BLOCK_C,), tl.float32)
    g11 = tl.zeros((BLOCK_C,), tl.float32)
    pixel = tl.arange(0, BLOCK_Y * BLOCK_X)
    end_y, end_x = _first_pixel(patch_y + 1, h, H, ALIGN_CORNERS), _first_pixel(patch_x + 1, w, W, ALIGN_CORNERS)
    for start_y in range(_first_pixel(patch_y, h, H, ALIGN_CORNERS), end_y, BLOCK_Y):
        for start_x in range(_first_pixel(patch_x, w, W, ALIGN_CORNERS), end_x, BLOCK_X):
            y, x = start_y + pixel // BLOCK_X, start_x + pixel % BLOCK_X
            inside = (y < end_y) & (x < end_x)
            fy, fx = _fraction(y, patch_y, h, H, ALIGN_CORNERS), _fraction(x, patch_x, w, W, ALIGN_CORNERS)
            w00, w01 = ((1 - fy) * (1 - fx))[:, None], ((1 - fy) * fx)[:, None]
            w10, w11 = (fy * (1 - fx))[:, None], (fy * fx)[:, None]
            z = w00 * z00 + w01 * z01 + w10 * z10 + w11 * z11
            z = tl.where((c < C)[None, :], z, float("-inf"))

            at = (image * H + y) * W + x
            label = tl.load(labels_ptr + at, mask=inside, other=0).to(tl.int32)
            counted = inside & (label != ignore_index)
            if HAS_MASK:
                counted = counted & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
            weight = counted.to(tl.float32)
            count += weight
            if HAS_WEIGHT:
                weight = weight * tl.load(weight_ptr + at, mask=counted, other=0.0).to(tl.float32)

            largest = tl.max(z, 1)
            e = tl.exp(z - largest[:, None])
            total = tl.sum(e, 1)
            is_label = c[None, :] == label[:, None]
            own_logit = tl.sum(tl.where(is_label & (c < C)[None, :], z, 0.0), 1)
            pixel_loss = largest + tl.log(total) - own_logit
            # A label that is no class cannot raise here without waiting for the GPU; it makes the loss NaN.
            pixel_loss = tl.where((label >= 0) & (label < C), pixel_loss, float("nan"))
            loss += tl.where(counted, pixel_loss * weight, 0.0)
            if WITH_GRADIENT:
                g = (e / total[:, None] - is_label.to(tl.float32)) * weight[:, None]
                g00 += tl.sum(w00 * g, 0)
                g01 += tl.sum(w01 * g, 0)
                g10 += tl.sum(w10 * g, 0)
                g11 += tl.sum(w11 * g, 0)

    patch = (image * tl.num_programs(1) + patch_y) * tl.num_programs(0) + patch_x
    num_patches = tl.num_programs(2).to(tl.int64) * tl.num_programs(1) * tl.num_programs(0)
    tl.store(sums_ptr + patch, tl.sum(loss))
    tl.store(sums_ptr + num_patches + patch, tl.sum(count))
    if WITH_GRADIENT:
        at = corners_ptr + patch * 4 * C + c
        tl.store(at, g00, mask=c < C)
        tl.store(at + C, g01, mask=c < C)
        tl.store(at + 2 * C, g10, mask=c < C)
        tl.store(at + 3 * C, g11, mask=c < C)


@triton.jit
def _patch_corner(corners_ptr, image, y, x, corner: tl.constexpr, c, num_y, num_x, C: tl.constexpr):
    real = (y >= 0) & (y < num_y) & (x >= 0) & (x < num_x)
    at = ((image * num_y + y) * num_x + x) * 4 + corner
    return tl.load(corners_ptr + at[:, None] * C + c[None, :], mask=real[:, None] & (c < C)[None, :], other=0.0)


@triton.jit
def gather_corners_kernel(
    corners_ptr,
    totals_ptr,
    loss_ptr,
    gradient_ptr,
    w,
    num_y,
    num_x,
    stride_image,
    stride_class,
    stride_y,
    stride_x,
    C: tl.constexpr,
    BLOCK_X: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Gradient of each low-resolution position from the patches that meet there; and the mean loss."""
    image = tl.program_id(2).to(tl.int64)
    x = tl.program_id(0) * BLOCK_X + tl.arange(0, BLOCK_X)
    y = tl.zeros_like(x) + tl.program_id(1)
    c = tl.arange(0, BLOCK_C)
    gradient = _patch_corner(corners_ptr, image, y, x, 0, c, num_y, num_x, C)
    gradient += _patch_corner(corners_ptr, image, y, x - 1, 1, c, num_y, num_x, C)
    gradient += _patch_corner(corners_ptr, image, y - 1, x, 2, c, num_y, num_x, C)
    gradient += _patch_corner(corners_ptr, image, y - 1, x - 1, 3, c, num_y, num_x, C)
    count = tl.maximum(tl.load(totals_ptr + 1), 1.0)
    position = y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x
    at = gradient_ptr + image * stride_image + position[:, None] + c[None, :] * stride_class
    tl.store(at, gradient / count, mask=(x < w)[:, None] & (c < C)[None, :])
    if (image == 0) & (tl.program_id(1) == 0) & (tl.program_id(0) == 0):
        tl.store(loss_ptr, tl.div_rn(tl.load(totals_ptr), count))


def _shapes(
    logits: Tensor, labels: Tensor, mask: Tensor | None, weight: Tensor | None,
    ignore_index: int, align_corners: bool, with_gradient: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    gradient = torch.empty_like(logits if with_gradient else logits[:0], dtype=torch.float32)
    return logits.new_empty((), dtype=torch.float32), gradient


@kernel_op("fastuda::upsample_cross_entropy", _shapes)
def cross_entropy_with_gradient(
    logits: Tensor, labels: Tensor, mask: Tensor | None, weight: Tensor | None,
    ignore_index: int, align_corners: bool, with_gradient: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean loss (fp32 scalar) and its gradient (fp32, like the logits; empty unless asked for), in one pass.

    The softmax is at hand when the loss is made, so the gradient costs no second look at the pixels.
    """
    loss, gradient = _shapes(logits, labels, mask, weight, ignore_index, align_corners, with_gradient)
    num_images, num_classes, h, w = logits.shape
    height, width = labels.shape[-2:]
    num_y, num_x = max(h - 1, 1), max(w - 1, 1)
    sums = torch.empty((2, num_images * num_y * num_x), dtype=torch.float32, device=logits.device)
    corners = sums.new_empty((num_images, num_y, num_x, 4, num_classes) if with_gradient else 0)
    block_c = triton.next_power_of_2(num_classes)
    side_x = min(_PATCH_SIDE, max(1, _ELEMENTS_A_STEP // block_c // _PATCH_SIDE))
    side_y = min(_PATCH_SIDE, max(1, _ELEMENTS_A_STEP // block_c // side_x))
    launch(
        wrap_triton(upsample_cross_entropy_kernel),
        (num_x, num_y, num_images),
        logits, labels, labels if mask is None else mask, labels if weight is None else weight, sums, corners,
        h, w, height, width, *logits.stride(), ignore_index,
        C=num_classes, ALIGN_CORNERS=align_corners, HAS_MASK=mask is not None, HAS_WEIGHT=weight is not None,
        WITH_GRADIENT=with_gradient, BLOCK_Y=side_y, BLOCK_X=side_x, BLOCK_C=block_c, num_warps=4,
    )  # fmt: skip
    totals = sums.sum(1)
    if not with_gradient:
        return totals[0] / totals[1].clamp(min=1), gradient
    launch(
        wrap_triton(gather_corners_kernel),
        (triton.cdiv(w, _POSITIONS_A_PROGRAM), h, num_images),
        corners, totals, loss, gradient, w, num_y, num_x, *gradient.stride(),
        C=num_classes, BLOCK_X=_POSITIONS_A_PROGRAM, BLOCK_C=block_c, num_warps=2,
    )  # fmt: skip
    return loss, gradient


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.dtype = inputs[0].dtype
    ctx.set_materialize_grads(False)  # or backward would be handed zeros for what only it reads
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return (gradient * upstream).to(ctx.dtype), None, None, None, None, None, None


cross_entropy_with_gradient.register_autograd(_backward, setup_context=_keep)


def upsample_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int,
    weight: Tensor | None,
    mask: Tensor | None,
    align_corners: bool,
) -> Tensor:
    """The loss of `fastuda_kernels.upsample_cross_entropy`, whose checks its arguments have passed."""
    counted = None if mask is None else mask.contiguous()
    factor = None if weight is None else weight.detach().contiguous()
    with_gradient = logits.requires_grad and torch.is_grad_enabled()
    loss: Tensor = cross_entropy_with_gradient(
        logits, labels.contiguous(), counted, factor, ignore_index, align_corners, with_gradient
    )[0]
    return loss
