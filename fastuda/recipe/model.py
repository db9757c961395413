"""The recipe's table of a network: what every family's has, and which families there are."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fastuda.recipe.choice import Choice, by_kind

PACKAGE = "fastuda.model"

InputConvention = Literal["rgb-imagenet", "bgr-caffe", "rgb-tf"]


class Model(Choice):
    """The network and the weights that it starts from.

    A family's own table, in `fastuda/model/FAMILY/table.py` and called `Table`, adds what that network can be
    told; the folder is all that makes a family known. Tables import no torch.
    """

    of_warmup: ClassVar[tuple[str, ...] | None] = None

    usual: ClassVar[str] = "deeplab-v2"
    set_by_weights: ClassVar[tuple[str, ...]] = ("input",)
    """Fields that a weights file settles, whatever the recipe says."""
    least_values: ClassVar[int] = 2
    """Values a channel that training needs at the output's resolution, over the whole batch: BatchNorm needs 2, a
    network without it 1."""

    kind: str
    """Which network: `deeplab-v2`."""
    input: InputConvention = "rgb-imagenet"
    """Input convention: RGB mean/std, BGR 0-255 minus the Caffe mean, or TensorFlow's RGB from -1 to 1, that is 0-255
    minus 127, by 128 (protocol row 20)."""
    weights: str = "random"
    """What to start from: a file, a URL, or `random`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{8,64}$")] | None = None
    """For `weights` given as a URL: the (beginning of the) SHA-256 that the file must have."""

    @classmethod
    def kinds(cls) -> Mapping[str, type[Model]]:
        """The tables that there are, by kind."""
        return _tables()

    @classmethod
    def of_kind(cls, kind: object) -> type[Model]:
        return by_kind(_tables(), kind)

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages beside torch that the network is made of; a run goes on with the versions that it was begun with."""
        return ()

    @property
    def has_auxiliary(self) -> bool:
        """Whether the network has a second classifier (protocol row 16)."""
        return False

    def scale(self) -> tuple[object, ...]:
        """What decides how much a pass computes; equal for networks of the same work."""
        return (self.kind, self.model_dump(exclude={"weights", "sha256", "input"}))

    def positions(self, size: tuple[int, int]) -> int:
        """Positions of the low-resolution output for an image of `size` (width, height); 0 where there is none."""
        return size[0] * size[1]

    def refuses(self, size: tuple[int, int]) -> str | None:
        """Why the network takes no image of `size` (width, height), such as sides that are no multiple of its patches;
        None where it does."""
        if self.positions(size):
            return None
        side = self.smallest_side(1)
        return f"too small for the network, which has no output for less than [{side}, {side}]"

    def smallest_side(self, at_least: int) -> int:
        """The side of the smallest square image whose output has `at_least` positions."""
        side = 1
        while self.positions((side, side)) < at_least:
            side += 1
        return side


@cache
def _tables() -> dict[str, type[Model]]:
    # A look from a recipe into the room above it, as for terms and masks: at run time, at tables alone.
    found = {}
    for module in pkgutil.iter_modules(import_module(PACKAGE).__path__):
        if module.ispkg and find_spec(f"{PACKAGE}.{module.name}.table") is not None:
            table: type[Model] = import_module(f"{PACKAGE}.{module.name}.table").Table
            found[str(table.model_fields["kind"].default)] = table
    return found
