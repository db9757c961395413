"""The loss terms of equation 12, each from logits and labels to a scalar, and their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fastuda.method.mixing import MixedViews
from fastuda.method.prototypes import prototypes
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Contrast, Edge, Recipe
from fastuda_kernels.pixel_contrast import pixel_contrast
from fastuda_kernels.upsample_cross_entropy import upsample_cross_entropy

Losses = dict[str, Tensor]
"""Scalar loss terms by name: source, mix, htcm, pixel, prototype, the edge variant's edge_*, DSP's source_mix."""


def segmentation_loss(
    logits: Outputs,
    labels: Tensor,
    auxiliary_weight: float,
    *,
    auxiliary_labels: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of both heads, the auxiliary one weighted (paper eq. 1, 4, 7; protocol row 16).

    Args:
        logits: low-resolution logits of both heads.
        labels: uint8 [B, H, W]; `auxiliary_labels` likewise, where the auxiliary head learns others.
        auxiliary_weight: relative to the main head's loss; 0 leaves the auxiliary head out.
        mask: bool [B, H, W], pixels that count; all without it.

    Returns:
        Scalar, the mean over pixels.
    """
    loss = upsample_cross_entropy(logits.logits, labels, mask=mask)
    if logits.auxiliary is not None and auxiliary_weight > 0:
        own_labels = labels if auxiliary_labels is None else auxiliary_labels
        loss = loss + auxiliary_weight * upsample_cross_entropy(logits.auxiliary, own_labels, mask=mask)
    return loss


def mixed_losses(views: MixedViews, recipe: Recipe) -> Losses:
    """Every unweighted term that works on mixed images; a term that the recipe leaves out has no entry."""
    return {
        **_mix_terms(views, recipe),
        **_htcm_terms(views, recipe),
        **_contrast_terms(views, recipe.contrast),
        **_source_mix_terms(views, recipe),
    }


def weighted_sum(losses: Losses, recipe: Recipe) -> Tensor:
    """L of equation 12 over the terms present (protocol rows 15, 25)."""
    mixed, edge = recipe.method.mixed_weight, recipe.edge
    weights = {
        "source": 1.0,
        "mix": mixed,
        "htcm": mixed,
        "pixel": recipe.method.contrast_weight,
        "prototype": recipe.method.contrast_weight,
        "source_mix": recipe.source_mix.weight,
        "edge_mix": mixed * edge.paste_weight,
        "edge_htcm": mixed * edge.htcm_weight,
        "edge_htcm_auxiliary": mixed * edge.htcm_auxiliary_weight,
    }
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def pixel_loss(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """PiCL (paper eq. 11; protocol row 13) between two views' logits [B, C, H', W']."""
    return pixel_contrast(_rows(first), _rows(second), scale, from_logits=True)


def prototype_loss(first: Tensor, second: Tensor, labels: Tensor, settings: Contrast) -> Tensor:
    """ProCL (paper eq. 8-10; protocol row 14) between two views' logits [B, C, H', W'].

    `labels` uint8 [B, H, W] are those of both views, 255 where a pixel must not enter a prototype.
    """
    counted = _counted(settings.prototype_samples)
    first_rows, valid = prototypes(first[counted], labels[counted])
    second_rows, _ = prototypes(second[counted], labels[counted])
    loss = pixel_contrast(first_rows, second_rows, settings.prototype_scale, from_logits=True, valid=valid)
    return loss / len(labels) if settings.prototype_samples == "first" else loss


def _mix_terms(views: MixedViews, recipe: Recipe) -> Losses:
    """L_st (eq. 4), and the edge variant's band around the paste (row 25 b), on the strong view."""
    if views.strong_logits is None:
        return {}
    labels, auxiliary_labels, weight = views.st.label_st, views.st_auxiliary_label, recipe.auxiliary.weight
    strong = views.strong_logits
    losses = {"mix": segmentation_loss(strong, labels, weight, auxiliary_labels=auxiliary_labels)}
    if views.under is not None:
        under = segmentation_loss(strong, views.under.label, weight, auxiliary_labels=views.under.two_head)
        losses["mix"] = torch.lerp(under, losses["mix"], recipe.source_mix.opacity)
    if views.st.band_st is not None:
        band = views.st.band_st
        on_band = segmentation_loss(strong, labels, weight, auxiliary_labels=auxiliary_labels, mask=band)
        losses["edge_mix"] = _if_all_have(band, on_band, recipe.edge)
    return losses


def _htcm_terms(views: MixedViews, recipe: Recipe) -> Losses:
    """L_hts (eq. 7) of the main head, and the edge variant's terms (row 25 c, d)."""
    if views.hts_logits is None:
        return {}
    counted, on_edge = _counted(recipe.htcm.samples), _counted(recipe.edge.samples)
    main, auxiliary, labels = views.hts_logits.logits, views.hts_logits.auxiliary, views.hts.label_hts
    losses = {"htcm": upsample_cross_entropy(main[counted], labels[counted])}
    band = views.hts.band_hts
    if band is not None:
        on_band = upsample_cross_entropy(main[on_edge], labels[on_edge], mask=band[on_edge])
        losses["edge_htcm"] = _if_all_have(band, on_band, recipe.edge)
        if auxiliary is not None:
            own_labels = views.hts_auxiliary_label[on_edge]
            losses["edge_htcm_auxiliary"] = upsample_cross_entropy(auxiliary[on_edge], own_labels)
    return losses


def _counted(samples: str) -> slice:
    return slice(1) if samples == "first" else slice(None)


def _if_all_have(band: Tensor, loss: Tensor, settings: Edge) -> Tensor:
    """The loss on a band, bool [B, H, W]; as released nothing if any image has none of it (row 25)."""
    return loss * band.flatten(1).any(1).all() if settings.all_or_none else loss


def _source_mix_terms(views: MixedViews, recipe: Recipe) -> Losses:
    """L_ss of DSP (row 27), both heads: a soft paste counts for both labels, each by its share of the pixel."""
    if views.ss is None or views.ss_logits is None:
        return {}
    weight, opacity = recipe.auxiliary.weight, recipe.source_mix.opacity
    loss = segmentation_loss(views.ss_logits, views.ss.label, weight)
    if opacity < 1:
        loss = torch.lerp(segmentation_loss(views.ss_logits, views.ss.under_label, weight), loss, opacity)
    return {"source_mix": loss}


def _contrast_terms(views: MixedViews, settings: Contrast) -> Losses:
    """L_pixel and L_pro between the two views of x_st or, by the recipe, of x_hts (table 6)."""
    if settings.on == "st":
        first, second, labels = views.weak_logits, views.strong_logits, views.hts.label_confident
    else:
        first, second, labels = views.hts_weak_logits, views.hts_logits, views.hts.label_hts
    if first is None or second is None:
        return {}
    losses: Losses = {}
    if settings.pixel:
        losses["pixel"] = pixel_loss(first.logits, second.logits, settings.pixel_scale)
    if settings.prototype:
        losses["prototype"] = prototype_loss(first.logits, second.logits, labels, settings)
    return losses


def _rows(logits: Tensor) -> Tensor:
    return logits.flatten(2).transpose(1, 2)
