"""The mixed images of an iteration and the network's view of them (paper eq. 2, 3, 5, 6; rows 7-10, 25, 27)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastuda.data.batch import DomainBatch
from fastuda.method.network import Passes
from fastuda.method.pseudo_labels import PseudoLabels, label_crops
from fastuda.method.source_mix import SourcePaste, is_soft, softened, source_paste, with_long_tail
from fastuda.model.deeplab import DeepLabV2, Logits
from fastuda.recipe import Recipe
from fastuda_kernels.masked_mix import KeepPasted, MixedCrops, choose_classes, masked_mix


class MixedViews(NamedTuple):
    """Mixed crops and their logits; logits are None for a view that no loss of the recipe needs."""

    st: MixedCrops
    """CMix's images and labels."""
    hts: MixedCrops
    """HTCM's image and label, and the confident labels."""
    st_auxiliary_label: Tensor
    """uint8 [B, H, W]: what the auxiliary head learns on the class-mixed view (protocol row 16)."""
    under: PseudoLabels | None
    """What the target shows under a soft paste; None when pastes are hard."""
    ss: SourcePaste | None
    """DSP's source-to-source image; None in recipes without it."""
    weak_logits: Logits | None
    strong_logits: Logits | None
    hts_logits: Logits | None
    hts_weak_logits: Logits | None
    """Of the HTCM image made from weak crops: the second view when the contrast works on x_hts (table 6)."""
    ss_logits: Logits | None


def mix_crops(
    source: DomainBatch, target: DomainBatch, pseudo: PseudoLabels, recipe: Recipe, passes: Passes, keep: KeepPasted
) -> MixedCrops:
    """Mix one pair of crops with the recipe's class choice and threshold; `keep` as in `masked_mix`."""
    assert source.label is not None
    chosen = choose_classes(
        source.label,
        source.class_keys,
        fraction=recipe.mix.fraction,
        min_class=recipe.mix.min_class,
        skip_highest=recipe.mix.skip_highest,
    )
    return masked_mix(
        source.weak,
        source.strong,
        target.weak,
        target.strong,
        source.label,
        pseudo.label,
        pseudo.confidence,
        with_long_tail(chosen, recipe) if recipe.mix.enabled else torch.zeros_like(chosen),
        normalisation=passes.normalisation,
        confidence_threshold=recipe.method.tau,
        keep_pasted=keep,
        auxiliary_pseudo_label=pseudo.two_head,
        bands=recipe.edge.enabled,
    )


def mixed_views(
    student: DeepLabV2, source: DomainBatch, target: DomainBatch, pseudo: PseudoLabels, recipe: Recipe, passes: Passes
) -> MixedViews:
    """Mix the crops and run the student on each mixed image that a loss needs: weak, strong, HTCM, source on source."""
    keep: KeepPasted = "everywhere" if recipe.edge.enabled else "nowhere"
    hts = mix_crops(source, target, pseudo, recipe, passes, keep)
    st = softened(hts, target, recipe, passes)
    under = pseudo if is_soft(recipe) else None
    ss = source_paste(source, st.pasted, recipe, passes) if recipe.source_mix.enabled else None
    auxiliary_label, logits = st.label_auxiliary, dict[str, Logits]()
    needs_weak = _needs_weak(recipe)

    if needs_weak and (recipe.auxiliary.labels == "prediction" or recipe.htcm.from_ == "mixed"):
        # What comes next depends on this view's own prediction, so it goes through the network before the others.
        logits["weak"] = passes.normalised(student, st.weak)
        own = label_crops(logits["weak"], (source.weak.shape[1], source.weak.shape[2]), None, None)
        if recipe.auxiliary.labels == "prediction":
            auxiliary_label = own.two_head
        if recipe.htcm.from_ == "mixed":
            pseudo, keep = own, "everywhere" if recipe.edge.enabled else "inside"
            hts = mix_crops(source, target, pseudo, recipe, passes, keep)

    images: dict[str, Tensor] = {}
    if needs_weak and "weak" not in logits:
        images["weak"] = st.weak
    if recipe.mix.enabled:
        images["strong"] = st.strong
    if recipe.htcm.enabled:
        images["hts"] = hts.hts
    if recipe.contrast.on == "hts" and _contrasts(recipe):
        weak_crops = (source._replace(strong=source.weak), target._replace(strong=target.weak))
        images["hts weak"] = mix_crops(*weak_crops, pseudo, recipe, passes, keep).hts
    if ss is not None:
        images["ss"] = ss.image
    logits |= zip(images, passes.each(student, list(images.values())), strict=True)
    of_views = (logits.get(name) for name in ("weak", "strong", "hts", "hts weak", "ss"))
    return MixedViews(st, hts, auxiliary_label, under, ss, *of_views)


def _contrasts(recipe: Recipe) -> bool:
    return recipe.contrast.pixel or recipe.contrast.prototype


def _needs_weak(recipe: Recipe) -> bool:
    if not recipe.mix.enabled:
        return False
    follows_mixed = recipe.htcm.enabled and recipe.htcm.from_ == "mixed"
    own_labels = recipe.auxiliary.labels == "prediction" and recipe.model.auxiliary
    return follows_mixed or own_labels or (recipe.contrast.on == "st" and _contrasts(recipe))
