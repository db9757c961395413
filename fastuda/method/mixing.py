"""The mixed images of an iteration and the network's view of them (paper eq. 2, 3, 5, 6; rows 7-10, 25, 27)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from fastuda.classes import IGNORE_INDEX
from fastuda.data.loading.batch import DomainBatch
from fastuda.errors import UsageError
from fastuda.method.draws import Draws
from fastuda.method.paste_mask import PasteMask
from fastuda.method.pseudo_labels import PseudoLabels, by_confidence_rule, label_crops, label_target
from fastuda.method.quality import pseudo_weight
from fastuda.method.source_mix import is_soft, softened, source_paste, with_long_tail
from fastuda.method.term import ViewTerm
from fastuda.method.terms import view_terms
from fastuda.method.views import MixedViews
from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs, Segmenter
from fastuda.recipe import Recipe
from fastuda_kernels.masked_mix import KeepPasted, MixedCrops, choose_classes, masked_mix


def mix_crops(
    source: DomainBatch,
    target: DomainBatch,
    pseudo: PseudoLabels,
    recipe: Recipe,
    passes: Passes,
    draws: Draws,
    keep: KeepPasted,
) -> MixedCrops:
    """Mix one pair of crops with the recipe's mask and threshold; `keep` as in `masked_mix`."""
    assert source.label is not None
    chosen, paste_mask = _pasted(source, target, recipe, draws)
    return masked_mix(
        source.weak,
        source.strong,
        target.weak,
        target.strong,
        source.label,
        pseudo.label,
        pseudo.confidence,
        chosen,
        paste_mask=paste_mask,
        normalisation=passes.normalisation,
        confidence_threshold=recipe.method.tau,
        keep_pasted=keep,
        auxiliary_pseudo_label=pseudo.two_head,
        bands=recipe.edge.enabled,
    )


def _pasted(
    source: DomainBatch, target: DomainBatch, recipe: Recipe, draws: Draws
) -> tuple[Tensor | None, Tensor | None]:
    """Which source pixels are pasted: bool [B, C] of their classes, none where CMix is off, or a mask [B, H, W]."""
    assert source.label is not None
    mask = recipe.mix.mask
    if recipe.mix.enabled and isinstance(mask, PasteMask):
        return None, mask.paste(source, target, draws)
    chosen = choose_classes(
        source.label,
        source.class_keys,
        fraction=recipe.mix.fraction,
        min_class=recipe.mix.min_class,
        off_by_one=recipe.mix.off_by_one,
    )
    return (with_long_tail(chosen, recipe) if recipe.mix.enabled else torch.zeros_like(chosen)), None


def mixed_views(
    student: Segmenter,
    source: DomainBatch,
    target: DomainBatch,
    pseudo: PseudoLabels,
    recipe: Recipe,
    passes: Passes,
    draws: Draws,
    reference: Segmenter | None = None,
) -> MixedViews:
    """Mix the crops and run the student on each mixed image that a term needs.

    In this order, which BatchNorm's running statistics see (protocol row 19): strong, weak, the un-mixed target
    crop of `edge.confidence`, HTCM, those of tables 4 and 6, and those that further terms bring. `reference` is the
    frozen network of terms that read one. UsageError names a term whose view nobody makes, or makes without a mix, or
    makes already.
    """
    terms = view_terms(recipe)
    needed = {name for term in terms for name in term.needs(recipe)}
    if not recipe.mix.enabled and (unmixed := needed & {"strong", "weak"}):
        raise UsageError(f"{_who_reads(terms, unmixed, recipe)}, which is class-mixed, and mix.enabled is false")
    features, teachers = any(term.reads_features for term in terms), pseudo
    pseudo = by_confidence_rule(pseudo, recipe.method)
    learnt = pseudo.above(recipe.method.tau) if recipe.mix.pseudo_labels == "confident" else None
    keep: KeepPasted = "everywhere" if recipe.edge.enabled else "nowhere"
    hts = mix_crops(source, target, pseudo, recipe, passes, draws, keep)
    st = softened(hts, target, recipe, passes)
    under = teachers if is_soft(recipe) else None
    ss = source_paste(source, st.pasted, recipe, passes) if recipe.source_mix.enabled else None
    auxiliary_label, hts_auxiliary_label, outputs = st.label_auxiliary, hts.label_hts, dict[str, Outputs]()

    images: dict[str, Tensor] = {}
    shown = images
    if "strong" in needed:
        images["strong"] = st.strong
    if "weak" in needed or (recipe.mix.enabled and (_from_mixed(recipe) or _own_auxiliary_labels(recipe))):
        images["weak"] = st.weak
    if _follows_predictions(recipe):
        # What comes next depends on the student's answers, so these views go through the network before the others.
        outputs, shown, images = _each(student, images, passes, features), images, {}
        own = pseudo
        if "weak" in outputs:
            own = label_crops(outputs["weak"], (source.weak.shape[1], source.weak.shape[2]), None, None)
        if _from_crop(recipe) or _from_mixed(recipe):
            followed = label_target(student, target._replace(view=None), passes) if _from_crop(recipe) else own
            pseudo = by_confidence_rule(followed, recipe.method)
            keep = "everywhere" if recipe.edge.enabled else "inside"
            hts = mix_crops(source, target, pseudo, recipe, passes, draws, keep)
            hts_auxiliary_label = hts.label_hts
        if _own_auxiliary_labels(recipe):
            auxiliary_label = own.two_head
            shows_target = pseudo.above(recipe.method.tau) & ~hts.pasted
            hts_auxiliary_label = torch.where(shows_target, own.two_head, hts.label_hts)
    if learnt is not None and "strong" in needed:
        unlearnt = ~learnt & ~st.pasted
        st = st._replace(label_st=st.label_st.masked_fill(unlearnt, IGNORE_INDEX))
        auxiliary_label = auxiliary_label.masked_fill(unlearnt, IGNORE_INDEX)
        under = None if under is None else under.only(learnt)

    if "hts" in needed:
        images["hts"] = hts.hts
    if "hts weak" in needed:
        weak_crops = (source._replace(strong=source.weak), target._replace(strong=target.weak))
        images["hts weak"] = mix_crops(*weak_crops, pseudo, recipe, passes, draws, keep).hts
    if ss is not None:
        images["ss"] = ss.image
    for term in terms:
        brought = term.images(source, target, teachers, passes, draws)
        if twice := brought.keys() & (images.keys() | outputs.keys()):
            raise UsageError(f"the term {term.name} brings a view {min(twice)!r}, and there is one of that name")
        images |= brought
    outputs |= _each(student, images, passes, features)
    if missing := needed - outputs.keys():
        raise UsageError(f"{_who_reads(terms, missing, recipe)}, and the recipe makes {', '.join(outputs)}")
    for name in sorted({name for term in terms if term.reads_reference for name in term.needs(recipe)}):
        assert reference is not None
        outputs[name] = outputs[name]._replace(reference=passes.encoded(reference, {**shown, **images}[name]))
    weight = pseudo_weight(teachers, target, recipe)
    return MixedViews(st, hts, auxiliary_label, hts_auxiliary_label, teachers, under, ss, outputs, weight)


def _who_reads(terms: Sequence[ViewTerm], views: Collection[str], recipe: Recipe) -> str:
    """The first of the views by name, and the terms that need it."""
    view = min(views)
    names = ", ".join(term.name for term in terms if view in term.needs(recipe))
    return f"the term {names} needs a view {view!r}"


def _each(student: Segmenter, images: dict[str, Tensor], passes: Passes, features: bool) -> dict[str, Outputs]:
    return dict(zip(images, passes.each(student, list(images.values()), features=features), strict=True))


def _from_crop(recipe: Recipe) -> bool:
    """Whether x_hts follows a pass of its own over the un-mixed weak target crop (row 25)."""
    return recipe.edge.enabled and recipe.edge.confidence == "crop"


def _from_mixed(recipe: Recipe) -> bool:
    """Whether x_hts follows the weak class-mixed view's own prediction (row 9)."""
    return recipe.htcm.enabled and recipe.htcm.from_ == "mixed" and not _from_crop(recipe)


def _own_auxiliary_labels(recipe: Recipe) -> bool:
    return recipe.auxiliary.labels == "prediction" and recipe.model.has_auxiliary


def _follows_predictions(recipe: Recipe) -> bool:
    """Whether a label or an image of a later view comes from the student's answer to a crop."""
    return recipe.mix.enabled and (_from_crop(recipe) or _from_mixed(recipe) or _own_auxiliary_labels(recipe))
