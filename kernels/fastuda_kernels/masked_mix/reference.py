"""Mixing as `torch.where` on uint8 crops, then normalisation: the specification of the one-pass kernel.

B images, C classes, H W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Normalisation(NamedTuple):
    """The network's input convention (protocol row 20): (value − mean) · scale a channel, in RGB or BGR order."""

    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    bgr: bool
    dtype: torch.dtype = torch.float32


class MixedCrops(NamedTuple):
    """What one iteration trains on besides the whole views; images [B, 3, H, W], labels uint8 [B, H, W]."""

    weak: Tensor
    """x_st^1: the class-mixed weak view (eq. 2)."""
    strong: Tensor
    """x_st^2: the class-mixed strong view."""
    hts: Tensor
    """x_hts: confident target pixels on the source crop (eq. 5)."""
    label_st: Tensor
    """y_st (eq. 3): source label where pasted, pseudo-label elsewhere."""
    label_hts: Tensor
    """y_hts (eq. 6)."""
    label_confident: Tensor
    """y_st with unconfident target pixels ignored: what prototypes average over (row 14)."""
    label_auxiliary: Tensor
    """y_st for the auxiliary head (row 16); the same as `label_st` without its own pseudo-labels."""
    pasted: Tensor
    """M_s, bool [B, H, W]."""
    band_st: Tensor | None
    """bool [B, H, W]: the band around M_s (row 25 b), if asked for."""
    band_hts: Tensor | None
    """bool [B, H, W]: the band around M_ht outside M_s (row 25 c), if asked for."""


def choose_classes(labels: Tensor, keys: Tensor, fraction: float, min_class: int, off_by_one: bool) -> Tensor:
    """bool [B, C], or [B, 256] if off by one: a random share of what is present in labels [B, H, W]; protocol row 7."""
    num_classes = keys.shape[1]
    present = torch.zeros(labels.shape[0], 256, dtype=torch.bool, device=labels.device)
    flat = labels.flatten(1).long()
    present.scatter_(1, flat, torch.ones_like(flat, dtype=torch.bool))
    index = torch.arange(num_classes, device=labels.device)
    candidate = present[:, :num_classes] & (index >= min_class)
    count = (candidate.sum(1, keepdim=True) * fraction).floor().clamp(min=1)
    rank = torch.where(candidate, keys, torch.inf).argsort(dim=1, stable=True).argsort(1)
    chosen = candidate & (rank < count)
    return _entry_before(chosen, present) if off_by_one else chosen


def _entry_before(chosen: Tensor, present: Tensor) -> Tensor:
    """bool [B, 256]: instead of each chosen class the entry before it among those present; round from first to last.

    Values from C on are ignored pixels, one entry, which is the list's first.
    """
    num_classes = chosen.shape[1]
    value = torch.arange(256, device=present.device)
    place = torch.where(value < num_classes, value + 1, 0)
    nowhere = 2 * (num_classes + 1)
    code = torch.where(present, 2 * place + F.pad(chosen, (0, 256 - num_classes)), nowhere)
    behind = torch.where(place[:, None] < place, code[:, None, :], nowhere).amin(2)
    following = torch.where(behind < nowhere, behind, code.amin(1, keepdim=True))
    return present & (following % 2 == 1)


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """uint8 RGB [B, H, W, 3] → [B, 3, H, W] channels-last; protocol row 20."""
    channels = images.to(torch.promote_types(normalisation.dtype, torch.float32)).unbind(-1)
    if normalisation.bgr:
        channels = channels[::-1]
    # Mean and scale enter as numbers: a tensor of them is a copy from the host, which no CUDA graph can hold.
    values = [
        (channel - mean) * scale
        for channel, mean, scale in zip(channels, normalisation.mean, normalisation.scale, strict=True)
    ]
    return torch.stack(values, dim=-1).to(normalisation.dtype).permute(0, 3, 1, 2)


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
    """Paper eq. 2, 3, 5, 6; protocol rows 7, 9, 14, 16, 25. See the public function.

    `chosen` is of classes [B, C], or of pixels [B, H, W]: the paste mask.
    """
    pasted = chosen != 0 if chosen.ndim == 3 else _paste_mask(source_label, chosen)
    confident = confidence > confidence_threshold
    kept = {"nowhere": torch.zeros_like(pasted), "inside": pasted & confident, "everywhere": pasted}[keep_pasted]

    weak = torch.where(pasted[..., None], source_weak, target_weak)
    strong = torch.where(pasted[..., None], source_weak, target_strong)
    onto_source = torch.where(confident[..., None], target_strong, source_strong)
    hts = torch.where(kept[..., None], source_weak, onto_source)

    # Inside M_ht the released code has the prediction for a label, where it shows pasted pixels too (row 10).
    target_in_hts = confident & ~pasted if keep_pasted == "everywhere" else confident
    htcm_label = pseudo_label if htcm_label is None else htcm_label
    auxiliary_label = pseudo_label if auxiliary_pseudo_label is None else auxiliary_pseudo_label
    label_st = torch.where(pasted, source_label, pseudo_label)
    return MixedCrops(
        weak=normalise(weak, normalisation),
        strong=normalise(strong, normalisation),
        hts=normalise(hts, normalisation),
        label_st=label_st,
        label_hts=torch.where(target_in_hts, htcm_label, source_label),
        label_confident=torch.where(pasted | confident, label_st, ignore_index),
        label_auxiliary=torch.where(pasted, source_label, auxiliary_label),
        pasted=pasted,
        band_st=_band(pasted) if bands else None,
        band_hts=_band(confident) & ~pasted if bands else None,
    )


def _paste_mask(source_label: Tensor, chosen: Tensor) -> Tensor:
    lookup = F.pad(chosen, (0, 256 - chosen.shape[1]))
    return lookup.gather(1, source_label.flatten(1).long()).view(source_label.shape)


def _band(mask: Tensor) -> Tensor:
    """2×2 dilation minus 2×2 erosion, window reaching up and left, borders replicated; protocol row 25."""
    window = F.pad(mask[:, None].float(), (1, 0, 1, 0), mode="replicate")
    dilated = F.max_pool2d(window, 2, stride=1)
    eroded = -F.max_pool2d(-window, 2, stride=1)
    return (dilated != eroded)[:, 0]
