"""Mixing, choice of classes and normalisation as operators: launches of `device.py`; none has a gradient."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from fastuda_kernels.masked_mix.device import (
    choose_kernel,
    entry_before_kernel,
    masked_mix_kernel,
    normalise_kernel,
    presence_kernel,
)
from fastuda_kernels.masked_mix.reference import MixedCrops, Normalisation
from fastuda_kernels.operators import kernel_op, launch, wrap_triton

_PIXELS = 512
_PRESENCE_PIXELS = 4096
_CLASSES_A_PART = 32
_KEEP = {"nowhere": 0, "inside": 1, "everywhere": 2}


def _choose_shapes(labels: Tensor, keys: Tensor, fraction: float, min_class: int, off_by_one: bool) -> Tensor:
    return keys.new_empty((keys.shape[0], 256) if off_by_one else keys.shape, dtype=torch.bool)


@kernel_op("fastuda::choose_classes", _choose_shapes)
def choose_present(labels: Tensor, keys: Tensor, fraction: float, min_class: int, off_by_one: bool) -> Tensor:
    """bool [B, C] or [B, 256]; a launch over the pixels, one over the classes, and one that takes what lies before."""
    num_images, num_classes = keys.shape
    num_pixels = labels.shape[1] * labels.shape[2]
    runs = triton.cdiv(num_pixels, _PRESENCE_PIXELS)
    present = torch.empty((num_images, runs, 256), dtype=torch.int8, device=labels.device)
    launch(wrap_triton(presence_kernel), (runs, num_images), labels, present, num_pixels, BLOCK_P=_PRESENCE_PIXELS)
    chosen = _choose_shapes(labels, keys, fraction, min_class, off_by_one=False)
    block_c = triton.next_power_of_2(num_classes)
    launch(
        wrap_triton(choose_kernel),
        (num_images,),
        present, keys, chosen.view(torch.int8), runs, fraction, min_class,
        C=num_classes, BLOCK_C=block_c, BLOCK_PART=min(_CLASSES_A_PART, block_c),
    )  # fmt: skip
    if not off_by_one:
        return chosen
    before = _choose_shapes(labels, keys, fraction, min_class, off_by_one)
    launch(
        wrap_triton(entry_before_kernel),
        (num_images,),
        present, chosen.view(torch.int8), before.view(torch.int8), runs,
        C=num_classes, BLOCK_PART=_CLASSES_A_PART,
    )  # fmt: skip
    return before


def _normalise_shapes(images: Tensor, mean: list[float], scale: list[float], bgr: bool, dtype: torch.dtype) -> Tensor:
    return torch.empty(images.shape, dtype=dtype, device=images.device)


@kernel_op("fastuda::normalise", _normalise_shapes)
def normalise_values(images: Tensor, mean: list[float], scale: list[float], bgr: bool, dtype: torch.dtype) -> Tensor:
    """[B, H, W, 3] of uint8 to the same shape of `dtype`."""
    out = _normalise_shapes(images, mean, scale, bgr, dtype)
    num_values, block = images.numel(), 4 * _PIXELS
    launch(
        wrap_triton(normalise_kernel),
        (triton.cdiv(num_values, block),),
        images, out, num_values, *mean, *scale,
        BGR=bgr, BLOCK=block,
    )  # fmt: skip
    return out


def _mix_shapes(
    source_weak: Tensor, source_strong: Tensor, target_weak: Tensor, target_strong: Tensor,
    source_label: Tensor, pseudo_label: Tensor, htcm_label: Tensor | None, auxiliary_label: Tensor | None,
    confidence: Tensor, chosen: Tensor, mean: list[float], scale: list[float], bgr: bool, dtype: torch.dtype,
    threshold: float, ignore_index: int, keep: int, bands: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    weak, strong, hts = (torch.empty(source_weak.shape, dtype=dtype, device=source_weak.device) for _ in range(3))
    pixels = source_label.shape
    labels = source_label.new_empty((4, *pixels))
    return weak, strong, hts, labels, source_label.new_empty((3 if bands else 1, *pixels), dtype=torch.bool)


@kernel_op("fastuda::masked_mix", _mix_shapes)
def mix(
    source_weak: Tensor, source_strong: Tensor, target_weak: Tensor, target_strong: Tensor,
    source_label: Tensor, pseudo_label: Tensor, htcm_label: Tensor | None, auxiliary_label: Tensor | None,
    confidence: Tensor, chosen: Tensor, mean: list[float], scale: list[float], bgr: bool, dtype: torch.dtype,
    threshold: float, ignore_index: int, keep: int, bands: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Three images [B, H, W, 3], four labels [4, B, H, W], and masks [1 or 3, B, H, W].

    `chosen` is of classes [B, C], or of pixels [B, H, W]: the paste mask.
    """
    outputs = _mix_shapes(
        source_weak, source_strong, target_weak, target_strong, source_label, pseudo_label, htcm_label,
        auxiliary_label, confidence, chosen, mean, scale, bgr, dtype, threshold, ignore_index, keep, bands,
    )  # fmt: skip
    weak, strong, hts, labels, masks = outputs
    num_images, height, width = source_label.shape
    by_pixel = chosen.ndim == 3
    launch(
        wrap_triton(masked_mix_kernel),
        (triton.cdiv(height * width, _PIXELS), num_images),
        source_weak, source_strong, target_weak, target_strong, source_label, pseudo_label,
        pseudo_label if htcm_label is None else htcm_label,
        pseudo_label if auxiliary_label is None else auxiliary_label,
        confidence, chosen.view(torch.int8), weak, strong, hts, labels, masks.view(torch.int8),
        height * width, width, threshold, ignore_index, *mean, *scale,
        C=0 if by_pixel else chosen.shape[1], BY_PIXEL=by_pixel, KEEP=keep, BGR=bgr, BANDS=bands, BLOCK_P=_PIXELS,
    )  # fmt: skip
    return outputs


def choose_classes(labels: Tensor, keys: Tensor, fraction: float, min_class: int, off_by_one: bool) -> Tensor:
    """What `fastuda_kernels.masked_mix.choose_classes` returns, whose checks the arguments have passed."""
    chosen: Tensor = choose_present(labels.contiguous(), keys.contiguous(), fraction, min_class, off_by_one)
    return chosen


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """What `fastuda_kernels.masked_mix.normalise` returns, whose checks the arguments have passed."""
    mean, scale, bgr, dtype = normalisation
    values: Tensor = normalise_values(images.contiguous(), list(mean), list(scale), bgr, dtype)
    return values.permute(0, 3, 1, 2)


def masked_mix(
    source_weak: Tensor,
    source_strong: Tensor,
    target_weak: Tensor,
    target_strong: Tensor,
    source_label: Tensor,
    pseudo_label: Tensor,
    confidence: Tensor,
    chosen: Tensor,
    normalisation: Normalisation,
    confidence_threshold: float,
    ignore_index: int,
    keep_pasted: str,
    htcm_label: Tensor | None,
    auxiliary_pseudo_label: Tensor | None,
    bands: bool,
) -> MixedCrops:
    """What `fastuda_kernels.masked_mix.masked_mix` returns, whose checks the arguments have passed."""
    crops = [t.contiguous() for t in (source_weak, source_strong, target_weak, target_strong)]
    own = [t.contiguous() for t in (source_label, pseudo_label)]
    other = [None if t is None else t.contiguous() for t in (htcm_label, auxiliary_pseudo_label)]
    mean, scale, bgr, dtype = normalisation
    weak, strong, hts, labels, masks = mix(
        *crops, *own, *other, confidence.contiguous(), chosen.contiguous(), list(mean), list(scale), bgr, dtype,
        confidence_threshold, ignore_index, _KEEP[keep_pasted], bands,
    )  # fmt: skip
    return MixedCrops(
        weak=weak.permute(0, 3, 1, 2),
        strong=strong.permute(0, 3, 1, 2),
        hts=hts.permute(0, 3, 1, 2),
        label_st=labels[0],
        label_hts=labels[1],
        label_confident=labels[2],
        label_auxiliary=labels[3],
        pasted=masks[0],
        band_st=masks[1] if bands else None,
        band_hts=masks[2] if bands else None,
    )
