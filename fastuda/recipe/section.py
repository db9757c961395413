"""The base of every table of a recipe, and the types that its fields share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Size = tuple[Positive, Positive]
Channel = Annotated[int, Field(ge=0, le=255)]
Switch = bool | Literal["auto"]


class Section(BaseModel):
    """A table of the recipe: unknown keys are errors, values are frozen once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
