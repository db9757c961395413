"""What the header of fastuda's own files says of their network (metadata `model`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fastuda.errors import FastudaError
from fastuda.printable import brief, on_one_line
from fastuda.recipe.model import InputConvention

_Dilation = Annotated[int, Field(ge=1, le=4096)]


class Network(BaseModel):
    """The settings of `DeepLabV2` that its tensors do not tell, and the input it was trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    input: InputConvention
    stride_on: Literal["1x1", "3x3"]
    pool_padding: Literal[0, 1]
    aspp: Annotated[tuple[_Dilation, ...], Field(min_length=1, max_length=64)]

    @field_validator("pool_padding", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, bool | float):
            raise ValueError("Input should be 0 or 1")  # which true and 1.0 equal
        return value


def read_header(metadata: Mapping[str, str]) -> Network:
    """The network that a header describes. Raises FastudaError, without the file, that names each wrong field."""
    try:
        return Network.model_validate_json(metadata["model"])
    except KeyError:
        reason = "there is none"
    except ValidationError as error:
        reason = "; ".join(map(_explained, error.errors(include_url=False)[:3]))
    raise FastudaError(
        "its keys are fastuda's, but its header does not say which network they belong to "
        f"(metadata `model`: {reason}); export it again"
    )


def _explained(problem: object) -> str:
    assert isinstance(problem, dict)
    where = on_one_line(".".join(map(str, problem["loc"])), 100)
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such field; it has {', '.join(Network.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("json_invalid", "missing"):
        return f"{where + ': ' if where else ''}{on_one_line(message, 200)}"
    return f"{where + ': ' if where else ''}{on_one_line(message, 200)} (got {brief(problem['input'], 40)})"
