"""The base of every table of a recipe, and the types that its fields share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fastuda.errors import UsageError
from fastuda.files.paths import user_path


def _kept(path: Path) -> Path:
    """Absolute, since a run's folder keeps its recipe and may be gone on with from elsewhere."""
    try:
        return user_path(path).absolute()
    except UsageError as error:
        raise ValueError(str(error)) from error


Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
"""A weight or a range; what is multiplied with it stays well within float32."""
Rate = Annotated[float, Field(gt=0, le=1e3)]
# Far above any use, and all that numpy, torch and DALI can still take.
Iterations = Annotated[int, Field(ge=0, le=10**9)]
Interval = Annotated[int, Field(ge=1, le=10**9)]
"""Iterations between two events."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""Files to make."""
BatchSize = Annotated[int, Field(ge=1, le=4096)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Dilation = Annotated[int, Field(ge=1, le=1024)]
Pixels = Annotated[int, Field(ge=1, le=32768)]
Size = tuple[Pixels, Pixels]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Channel = Annotated[int, Field(ge=0, le=255)]
UserPath = Annotated[Path, AfterValidator(_kept)]
Globs = str | tuple[str, ...]
Switch = bool | Literal["auto"]


class Section(BaseModel):
    """A table of the recipe: unknown keys are errors, values are frozen once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    of_warmup: ClassVar[tuple[str, ...] | None] = ()
    """Fields that the source-only stage depends on; None for all. A table that says nothing has no say in it."""
