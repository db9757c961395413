"""The recipe's table of what pseudo-labels count."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fastuda.recipe.section import Section

Margin = Annotated[int, Field(ge=0, le=32768)]


class Quality(Section):
    """Pseudo-labels weighed by how many of them are sure (DACS, DAFormer), in L_st and in `terms.masked`."""

    enabled: bool = False
    """Weigh them; else each counts as much as a label of the source, as in the paper."""
    tau: Annotated[float, Field(ge=0, lt=1)] = 0.968
    """Confidence from which a pseudo-label is sure. All are learnt; how many are sure says what each counts."""
    per: Literal["image", "batch"] = "batch"
    """Of which pixels the share is taken: those of the image's own crop, or of all of the batch's (DAFormer, MIC)."""
    top: Margin = 0
    """Rows of the target view, pixels, whose pseudo-labels count nothing: the rim of rectified images."""
    bottom: Margin = 0
    """Likewise at the bottom, where the car itself is seen."""
    sides: Margin = 0
    """Likewise columns at the left and at the right."""
