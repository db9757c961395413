"""Class-mix and high-confidence mixing of two domains' crops in one call (paper eq. 2, 3, 5, 6)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fastuda_kernels.checks import check_tensor
from fastuda_kernels.choice import runs_triton
from fastuda_kernels.masked_mix import reference
from fastuda_kernels.masked_mix import triton as fused
from fastuda_kernels.masked_mix.reference import MixedCrops, Normalisation

__all__ = ["KeepPasted", "MixedCrops", "Normalisation", "choose_classes", "masked_mix", "normalise"]

KeepPasted = Literal["nowhere", "inside", "everywhere"]


def choose_classes(
    labels: Tensor,
    keys: Tensor,
    *,
    fraction: float = 0.5,
    min_class: int = 0,
    off_by_one: bool = False,
) -> Tensor:
    """A random share of the classes present in each image, with no host sync (protocol row 7).

    Args:
        labels: uint8 [B, H, W], train ids; values from C on are not classes.
        keys: float32 [B, C], uniform random; the present classes with the smallest keys are chosen, of equal keys the
            lower class.
        fraction: share of the present classes, floored, at least one.
        min_class: only train ids from here on count and are chosen.
        off_by_one: instead of each class drawn choose the entry before it in the sorted list of what is present,
            ignored pixels first (released code); before the first entry comes the last.

    Returns:
        bool [B, C]; [B, 256] with `off_by_one`, where a column is a label's value, for ignored pixels are chosen too.
    """
    check_tensor("labels", labels, shape=(None, None, None), dtypes=(torch.uint8,))
    check_tensor("keys", keys, shape=(labels.shape[0], None), dtypes=(torch.float32,), device=labels.device)
    choose = fused.choose_classes if runs_triton(labels) else reference.choose_classes
    return choose(labels, keys, fraction, min_class, off_by_one)


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """uint8 RGB [B, H, W, 3] → the network's input [B, 3, H, W], channels-last, `normalisation.dtype`."""
    check_tensor("images", images, shape=(None, None, None, 3), dtypes=(torch.uint8,))
    normalise_values = fused.normalise if runs_triton(images) else reference.normalise
    return normalise_values(images, normalisation)


def masked_mix(
    source_weak: Tensor,
    source_strong: Tensor,
    target_weak: Tensor,
    target_strong: Tensor,
    source_label: Tensor,
    pseudo_label: Tensor,
    confidence: Tensor,
    chosen: Tensor | None = None,
    *,
    paste_mask: Tensor | None = None,
    normalisation: Normalisation,
    confidence_threshold: float,
    ignore_index: int = 255,
    keep_pasted: KeepPasted = "nowhere",
    htcm_label: Tensor | None = None,
    auxiliary_pseudo_label: Tensor | None = None,
    bands: bool = False,
) -> MixedCrops:
    """Mix B source crops with B target crops, pixel by pixel, and normalise the results.

    The CMix mask M_s is where `source_label` is one of the chosen classes, or where `paste_mask` says so: there
    the **weak** source pixel goes into both target views (protocol row 7). The HTCM mask M_ht is where `confidence`
    exceeds the threshold: there the strong target pixel goes onto the strong source crop (row 9).

    Args:
        source_weak, source_strong, target_weak, target_strong: uint8 RGB [B, H, W, 3].
        source_label, pseudo_label: uint8 [B, H, W], train ids.
        confidence: float32 [B, H, W], whose comparison with the threshold gives M_ht.
        chosen: bool [B, C], from `choose_classes`; all False turns CMix off. Labels from C on are never pasted.
        paste_mask: bool or uint8 [B, H, W], in place of `chosen`: M_s is where it is not zero, whatever the label.
            Pixels whose label is `ignore_index` are pasted like any other, and stay ignored.
        keep_pasted: where the HTCM image shows the class-mixed view's pasted source pixels:
            `"nowhere"` (paper), `"inside"` M_ht (released code, where their label is the prediction all the same,
            row 10), `"everywhere"` (edge variant, row 25).
        htcm_label: uint8 [B, H, W]; target labels of the HTCM image, when not `pseudo_label`.
        auxiliary_pseudo_label: uint8 [B, H, W]; target labels for the auxiliary head (row 16).
        bands: also return the edge variant's band masks (row 25).

    Returns:
        MixedCrops; images [B, 3, H, W] channels-last in `normalisation.dtype`, labels uint8 [B, H, W].

    Raises:
        ValueError, TypeError: shapes, types or devices that do not fit, naming what came; both of `chosen` and
            `paste_mask`, or neither.
    """
    check_tensor("source_weak", source_weak, shape=(None, None, None, 3), dtypes=(torch.uint8,))
    crop, device = source_weak.shape[:3], source_weak.device
    images = {"source_strong": source_strong, "target_weak": target_weak, "target_strong": target_strong}
    for name, image in images.items():
        check_tensor(name, image, shape=(*crop, 3), dtypes=(torch.uint8,), device=device)
    labels = {
        "source_label": source_label,
        "pseudo_label": pseudo_label,
        "htcm_label": htcm_label,
        "auxiliary_pseudo_label": auxiliary_pseudo_label,
    }
    for name, label in labels.items():
        if label is not None:
            check_tensor(name, label, shape=crop, dtypes=(torch.uint8,), device=device)
    check_tensor("confidence", confidence, shape=crop, dtypes=(torch.float32,), device=device)
    if chosen is not None and paste_mask is None:
        check_tensor("chosen", chosen, shape=(crop[0], None), dtypes=(torch.bool,), device=device)
        pasted = chosen
    elif paste_mask is not None and chosen is None:
        check_tensor("paste_mask", paste_mask, shape=crop, dtypes=(torch.bool, torch.uint8), device=device)
        pasted = paste_mask
    else:
        given = "neither" if chosen is None else "both"
        raise ValueError(f"chosen or paste_mask says what is pasted: give one of them, got {given}")
    if keep_pasted not in ("nowhere", "inside", "everywhere"):
        raise ValueError(f'keep_pasted must be "nowhere", "inside" or "everywhere", got {keep_pasted!r}')
    mix = fused.masked_mix if runs_triton(source_weak) else reference.masked_mix
    return mix(
        source_weak,
        source_strong,
        target_weak,
        target_strong,
        source_label,
        pseudo_label,
        confidence,
        pasted,
        normalisation,
        confidence_threshold,
        ignore_index,
        keep_pasted,
        htcm_label,
        auxiliary_pseudo_label,
        bands,
    )
