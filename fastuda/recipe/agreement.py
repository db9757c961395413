"""What the tables of a recipe have to agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastuda.errors import nearest
from fastuda.layouts import LAYOUTS
from fastuda.recipe.mask import Mask

if TYPE_CHECKING:
    from fastuda.recipe import Recipe


def check(recipe: Recipe) -> None:
    """Raise ValueError, naming the fields, for tables that are sound each and none together."""
    _classes(recipe)
    _labels(recipe)
    _views(recipe)
    _parts(recipe)
    if recipe.warmup.iterations == 0 and recipe.train.iterations == 0:
        raise ValueError("warmup.iterations and train.iterations are both 0: there is nothing to train")


def _classes(recipe: Recipe) -> None:
    """Every class that is named is one that is trained."""
    classes = recipe.classes.build()
    names = classes.names
    for subset, members in recipe.eval.subsets.items():
        unknown = [name for name in members if name not in names]
        if unknown:
            raise ValueError(f"eval.subsets.{subset} names no class of this recipe: {', '.join(unknown)}")
    _merged(recipe)
    for where in ("source", "target"):
        ids = getattr(recipe, where).ids or {}
        unknown = sorted({name for name in ids.values() if name not in classes.counted and name != "ignore"})
        if unknown:
            raise ValueError(
                f"{where}.ids names no class of this recipe: {', '.join(unknown)} "
                f'(classes: {", ".join(classes.counted)}; "ignore" for values to leave out)'
            )
    for term in recipe.terms.values():
        term.check(names)


def _merged(recipe: Recipe) -> None:
    """A merged name that no data set can have is a slip, by which its pixels would be ignored."""
    if not recipe.classes.merged:
        return
    known = {name for layout in LAYOUTS.values() for kind in layout.labels for name in kind.ids.values()}
    for domain in (recipe.source, recipe.target):
        known |= {name for name in (domain.ids or {}).values() if name != "ignore"}
    for name, several in recipe.classes.merged.items():
        for one in several:
            if one not in known:
                raise ValueError(
                    f"classes.merged.{name}: neither a data set that fastuda knows nor `ids` has a class "
                    f"{one!r}{nearest(one, sorted(known))}"
                )


def _labels(recipe: Recipe) -> None:
    """Labels of the target are learnt alone or beside the source's, and are there."""
    alone = recipe.train.labels == "target"
    if alone and recipe.parts:
        raise ValueError(
            f'train.labels = "target" trains on labels alone: it needs parts = [], and on are {", ".join(recipe.parts)}'
        )
    if recipe.source.labelled is not None:
        raise ValueError("source.labelled: all of the source is labelled; `listing` narrows what is trained on")
    if (alone or recipe.target.labelled is not None) and (lacking := recipe.target.lacks_training_labels):
        asks = 'train.labels = "target"' if alone else "target.labelled"
        raise ValueError(f"{asks} needs labels of the target's training images: {lacking}")


def _views(recipe: Recipe) -> None:
    """Crops and margins lie in the views."""
    views, quality = recipe.views, recipe.quality
    for name in ("source_size", "target_size") if views.crop == "cut" else ():
        size, crop = getattr(views, name), views.crop_size
        if size[0] < crop[0] or size[1] < crop[1]:
            raise ValueError(f'views.crop = "cut" cuts {list(crop)} (views.crop_size) out of {name} = {list(size)}')
    if views.source_jitter > 0 and not views.whole:
        raise ValueError("views.source_jitter changes the whole source view, and views.whole is false")
    width, height = views.target_size
    if quality.enabled and (quality.top + quality.bottom >= height or 2 * quality.sides >= width):
        raise ValueError(f"quality: its margins leave nothing of views.target_size = {[width, height]}")


def _parts(recipe: Recipe) -> None:
    """A part of the method that is on has what it works on."""
    mixed_by = {"st": ("mix", recipe.mix.enabled), "hts": ("htcm", recipe.htcm.enabled)}
    section, enabled = mixed_by[recipe.contrast.on]
    if not enabled and (recipe.contrast.pixel or recipe.contrast.prototype):
        raise ValueError(
            f'contrast.on = "{recipe.contrast.on}" needs {section}.enabled; '
            "without it set contrast.pixel = false and contrast.prototype = false"
        )
    if recipe.htcm.enabled and recipe.htcm.from_ == "mixed" and not recipe.mix.enabled:
        raise ValueError('htcm.from = "mixed" needs mix.enabled')
    if recipe.source_mix.enabled:
        _source_mix(recipe)
    if recipe.quality.enabled and not (recipe.mix.enabled or "masked" in recipe.terms):
        raise ValueError("quality.enabled weighs the labels of mix and of terms.masked, and neither is on")
    if recipe.edge.enabled and not (recipe.mix.enabled and recipe.htcm.enabled):
        raise ValueError("edge.enabled needs mix.enabled and htcm.enabled")


def _source_mix(recipe: Recipe) -> None:
    names = recipe.classes.build().names
    unknown = [name for name in recipe.source_mix.long_tail if name not in names]
    if unknown:
        raise ValueError(
            f"source_mix.long_tail names no class of this recipe: {', '.join(unknown)} "
            f"(classes: {', '.join(names)}; [] for none)"
        )
    if not recipe.mix.enabled:
        raise ValueError("source_mix.enabled needs mix.enabled")
    if recipe.mix.mask.kind != Mask.usual:
        raise ValueError(f'source_mix.enabled pastes classes, and mix.mask.kind is "{recipe.mix.mask.kind}"')
    if recipe.train.batch_size < 2:
        raise ValueError("source_mix.enabled needs a train.batch_size of 2 or more: it pastes between crops")
