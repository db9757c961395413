"""DSP's additions to CMix: a second paste, from source to source, and pastes that let what is under them through.

The paper compares with DSP (Gao et al., MM '21) in table 4; protocol row 27 says what is meant by it here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda_kernels.masked_mix import MixedCrops, normalise


class SourcePaste(NamedTuple):
    """x_ss: classes of each source crop on the batch's next source crop."""

    image: Tensor
    """Normalised [B, 3, H, W]."""
    label: Tensor
    """uint8 [B, H, W]: the pasted crop's label where pasted, the other's elsewhere."""
    under_label: Tensor
    """uint8 [B, H, W]: the other crop's label everywhere, which a soft paste lets through."""


def with_long_tail(chosen: Tensor, recipe: Recipe) -> Tensor:
    """`chosen`, bool [B, C or more], and the classes of `source_mix.long_tail`, pasted wherever they occur."""
    if not recipe.source_mix.enabled:
        return chosen
    names = recipe.classes.build().names
    columns = [name in recipe.source_mix.long_tail for name in names]
    # Column by column: a mask made of a list would be a copy from the host, which no CUDA graph can hold.
    classes = [torch.ones_like(chosen[:, i]) if added else chosen[:, i] for i, added in enumerate(columns)]
    return torch.cat([torch.stack(classes, 1), chosen[:, len(columns) :]], 1)


def is_soft(recipe: Recipe) -> bool:
    """Whether pastes let what is under them through."""
    return recipe.source_mix.enabled and recipe.source_mix.opacity < 1


def softened(st: MixedCrops, target: DomainBatch, recipe: Recipe, passes: Passes) -> MixedCrops:
    """The class-mixed views with the target shining through where source is pasted; as they are if pastes are hard."""
    if not is_soft(recipe):
        return st

    def soft(mixed: Tensor, under: Tensor) -> Tensor:
        # Off the paste both are the target's pixel, so the blend changes nothing there.
        return torch.lerp(normalise(under, passes.normalisation), mixed, recipe.source_mix.opacity)

    return st._replace(weak=soft(st.weak, target.weak), strong=soft(st.strong, target.strong))


def source_paste(source: DomainBatch, pasted: Tensor, recipe: Recipe, passes: Passes) -> SourcePaste:
    """Paste each strong source crop's pixels of `pasted`, bool [B, H, W], onto the next crop of the batch."""
    assert source.label is not None
    over = normalise(source.strong, passes.normalisation)
    under, under_label = over.roll(-1, 0), source.label.roll(-1, 0)
    soft = torch.lerp(under, over, recipe.source_mix.opacity)
    return SourcePaste(
        image=torch.where(pasted[:, None], soft, under),
        label=torch.where(pasted, source.label, under_label),
        under_label=under_label,
    )
