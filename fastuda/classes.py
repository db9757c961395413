"""The classes a model tells apart: names, colours, and the tables that turn a data set's label ids into train ids.

Tables compose by *name*. A layout says which class name each of its label ids stands for
(`fastuda.layouts`); a recipe lists the names it trains, in order, and may count further names as
one of them; an id whose name is neither is ignored. So 19, 16 and 13 classes, and anyone's own
list, are the same mechanism (protocol row 24).
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from fastuda.errors import UsageError, nearest
from fastuda.printable import on_one_line

if TYPE_CHECKING:  # names alone are all that `--help` needs, at once
    import numpy as np
    from numpy.typing import NDArray

IGNORE_INDEX = 255
"""The label value, everywhere inside fastuda, of a pixel that no loss and no metric counts."""

Colour = tuple[int, int, int]
Values = Literal["label-ids", "train-ids"]
"""What the values of a label file are."""
_VALUES: tuple[Values, ...] = get_args(Values)
_FIRST_FREE_ID = 35

# name -> (Cityscapes labelId, colour), in the order of the official 19 trainIds.
_CITYSCAPES: dict[str, tuple[int, Colour]] = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}

CITYSCAPES_19 = tuple(_CITYSCAPES)
CITYSCAPES_16 = tuple(name for name in CITYSCAPES_19 if name not in ("terrain", "truck", "train"))
CITYSCAPES_13 = tuple(name for name in CITYSCAPES_16 if name not in ("wall", "fence", "pole"))
PRESETS: dict[str, tuple[str, ...]] = {
    "cityscapes19": CITYSCAPES_19,
    "cityscapes16": CITYSCAPES_16,
    "cityscapes13": CITYSCAPES_13,
}

CITYSCAPES_IDS: dict[int, str] = {label_id: name for name, (label_id, _) in _CITYSCAPES.items()}
CITYSCAPES_TRAIN_IDS: dict[int, str] = dict(enumerate(CITYSCAPES_19))


@dataclass(frozen=True)
class ClassSet:
    """An ordered list of classes; a class's position is its train id.

    `names` are unique; `palette` holds one RGB colour (0-255) a class, in the same order; `merged` names, by class,
    what of a data set's classes counts as it beside its own.
    """

    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    merged: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a class list needs at least one name")
        if len(self.names) >= IGNORE_INDEX:
            raise ValueError(f"{len(self.names)} classes; labels are 8-bit, so at most {IGNORE_INDEX - 1} fit")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"class names are listed twice: {', '.join(repeated)}")
        if len(self.palette) != len(self.names):
            raise ValueError(f"{len(self.names)} class names but {len(self.palette)} palette colours")
        self._check_merged()

    def _check_merged(self) -> None:
        into: dict[str, str] = {}
        for name, several in self.merged:
            if name not in self.names:
                raise ValueError(f"merged names no class of the list: {name}{nearest(name, self.names)}")
            for one in several:
                if one in self.names:
                    raise ValueError(f"{one} is a class of its own: leave it out of the names, or of merged.{name}")
                if one in into:
                    raise ValueError(f"{one} is merged twice, into {into[one]} and into {name}")
                into[one] = name

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(
        cls,
        names: tuple[str, ...],
        palette: tuple[Colour, ...] | None = None,
        merged: Mapping[str, tuple[str, ...]] | None = None,
    ) -> ClassSet:
        """Classes by name; without a palette, Cityscapes' colours where known, else evenly spread hues.

        Raises ValueError when names repeat, the palette's length differs, or `merged` (class → names that count as it)
        does not fit the names.
        """
        if palette is None:
            palette = tuple(
                _CITYSCAPES[name][1] if name in _CITYSCAPES else _hue(i, len(names)) for i, name in enumerate(names)
            )
        return cls(tuple(names), palette, tuple((merged or {}).items()))

    def train_id_table(self, ids: Mapping[int, str], size: int = 256) -> NDArray[np.uint8]:
        """Lookup table [size] uint8 from a label value to a train id; values without a class give 255.

        `ids` maps label values to class names; names outside this class list, and not merged into it, are ignored.
        """
        import numpy as np

        counted = self.counted
        table = np.full(size, IGNORE_INDEX, np.uint8)
        for label_id, name in ids.items():
            if not 0 <= label_id < size:
                raise ValueError(f"label id {label_id} ({name}) is outside 0..{size - 1}")
            if name in counted:
                table[label_id] = self.names.index(counted[name])
        return table

    @property
    def counted(self) -> dict[str, str]:
        """Every name that a data set's class may have to count, with the class that it counts as."""
        return {name: name for name in self.names} | {one: name for name, several in self.merged for one in several}

    def label_ids(self) -> dict[str, int]:
        """Class name → its value in label files that hold label ids; no two are alike, and none is 255.

        Cityscapes' labelIds where names are Cityscapes'. A class of one's own gets an id that is free: from 35 on,
        above all that Cityscapes and GTA5 know; in a list without any Cityscapes class, its train id.
        """
        if self.all_own:
            return {name: train_id for train_id, name in enumerate(self.names)}
        known = {name: _CITYSCAPES[name][0] for name in self.names if name in _CITYSCAPES}
        ids = (*range(_FIRST_FREE_ID, IGNORE_INDEX), *range(1, _FIRST_FREE_ID))
        free = iter(i for i in ids if i not in known.values())
        return {name: known[name] if name in known else next(free) for name in self.names}

    @property
    def all_own(self) -> bool:
        """Whether no class is one of Cityscapes'."""
        return not any(name in _CITYSCAPES for name in self.names)

    def own_names(self) -> tuple[str, ...]:
        """The classes that Cityscapes does not name."""
        return tuple(name for name in self.names if name not in _CITYSCAPES)

    def values(self, kind: Values) -> dict[str, int]:
        """Class name → its value in label files of that kind."""
        if kind == "label-ids":
            return self.label_ids()
        return {name: train_id for train_id, name in enumerate(self.names)}

    def value_table(self, kind: Values) -> NDArray[np.uint8]:
        """Lookup table [256] uint8 from train id to `values`; train ids without a class give 255."""
        import numpy as np

        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[: len(self)] = [*self.values(kind).values()]
        return table

    def colour_table(self) -> NDArray[np.uint8]:
        """Lookup table [256, 3] uint8 from train id to RGB; 255 and unused ids are black."""
        import numpy as np

        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.palette
        return table


def known_values(name: str) -> Values:
    """`name` where it is one of `Values`; UsageError naming both, and the nearest, for anything else."""
    for known in _VALUES:
        if name == known:
            return known
    raise UsageError(f"values {on_one_line(name, 80)}: {' or '.join(_VALUES)}{nearest(name, _VALUES)}")


def _hue(index: int, count: int) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(index / max(count, 1), 0.65, 0.9)
    return round(r * 255), round(g * 255), round(b * 255)
