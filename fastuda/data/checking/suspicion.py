"""What is no fault of a file and yet looks like a mistake: classes that never occur, specks, masks of 255."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastuda.classes import IGNORE_INDEX, ClassSet
from fastuda.data.checking.label_look import LabelLook
from fastuda.data.reading.listing import counted

SuspicionKind = Literal[
    "no labelled pixel", "one class", "classes missing", "class absent", "all ignored", "255 foreground", "specks",
    "speckled", "turned", "damaged",
]  # fmt: skip
_SPECKLED = 0.02
"""Share of pixels outside any 2×2 square above which a label looks resampled; drawn ones stay well below 1 %."""


@dataclass(frozen=True)
class Suspicion:
    """One thing that looks wrong, in words, and the samples that show it, the worst first."""

    kind: SuspicionKind
    detail: str
    samples: list[str] = field(default_factory=list)


def class_suspicions(pixels: NDArray[np.int64], classes: ClassSet) -> list[Suspicion]:
    """What the pixels of a whole split say, int64 [256] by train id (255: ignored)."""
    absent = [name for train_id, name in enumerate(classes.names) if not pixels[train_id]]
    num_present = len(classes) - len(absent)
    if not num_present:
        return [Suspicion("no labelled pixel", "not one pixel has a class of the recipe; check the label ids")]
    found = []
    if num_present == 1 and len(classes) > 1:
        only = next(name for name in classes.names if name not in absent)
        found.append(Suspicion("one class", f"{only} is the only class that occurs: there is nothing to tell apart"))
    if 2 * len(absent) > len(classes):
        found.append(
            Suspicion(
                "classes missing",
                f"more than half of the recipe's classes never occur ({len(absent)} of {len(classes)}); check the "
                "label ids, or name only the classes that both domains have",
            )
        )
    if absent:
        plural = "classes that never occur" if len(absent) > 1 else "a class that never occurs"
        found.append(Suspicion("class absent", f"{plural}: {', '.join(absent)}"))
    return found


def foreground_suspicion(counts: Mapping[str, Mapping[int, int]], ignored: bool) -> list[Suspicion]:
    """Masks of 0 and 255 where 255 is `ignored`, sample name → label value → pixels."""
    masks = [name for name, values in counts.items() if set(values) == {0, IGNORE_INDEX}]
    if not ignored or not masks:
        return []
    share = np.mean([counts[name][IGNORE_INDEX] / sum(counts[name].values()) for name in masks])
    return [
        Suspicion(
            "255 foreground",
            f"{len(masks)} of {len(counts)} labels hold 0 and 255 alone, and 255 is ignored here ({100 * share:.0f} % "
            "of their pixels): if it is a mask's foreground, name both in the domain's `ids`, such as "
            '{ 0 = "other", 255 = "road" }',
            masks,
        )
    ]


def label_suspicions(
    looks: Mapping[str, LabelLook], tables: Mapping[str, NDArray[np.uint8]], classes: ClassSet
) -> list[Suspicion]:
    """What the labels of a split look like, by sample name; `tables` [65536] turn each one's values into train ids."""
    found = _specks(looks, tables, classes)
    speckled = sorted(
        (name for name, look in looks.items() if look.speckled > _SPECKLED), key=lambda name: -looks[name].speckled
    )
    if speckled:
        found.append(
            Suspicion(
                "speckled",
                f"{len(speckled)} labels are speckled: up to {100 * looks[speckled[0]].speckled:.0f} % of their pixels "
                "belong to no area, as in labels that were resized with interpolation or once saved as JPEG",
                speckled,
            )
        )
    empty = [name for name, look in looks.items() if all(tables[name][value] == IGNORE_INDEX for value in look.counts)]
    if empty:
        found.append(Suspicion("all ignored", f"{len(empty)} labels have no pixel of a class of the recipe", empty))
    return found


def damage_suspicion(images: Mapping[str, Path], damages: Mapping[str, str]) -> list[Suspicion]:
    """JPEGs whose structure is damaged though they were decoded, sample name → file and what is wrong."""
    if not damages:
        return []
    names = sorted(damages)
    first = f"{images[names[0]]}: {damages[names[0]]}"
    return [
        Suspicion(
            "damaged",
            f"{counted(len(names), 'image')} could be decoded and {'look' if len(names) > 1 else 'looks'} damaged all "
            f"the same ({first}): part of the picture may be grey or shifted; look at it, or fetch it again",
            names,
        )
    ]


def _specks(
    looks: Mapping[str, LabelLook], tables: Mapping[str, NDArray[np.uint8]], classes: ClassSet
) -> list[Suspicion]:
    solid: set[int] = set()
    where: dict[int, dict[str, int]] = {}
    for name, look in looks.items():
        solid |= {int(tables[name][value]) for value in look.solid}
        for value, count in look.counts.items():
            pixels = where.setdefault(int(tables[name][value]), {})
            pixels[name] = pixels.get(name, 0) + count
    return [
        Suspicion(
            "specks",
            f"{classes.names[train_id]} occurs only as single pixels or lines of one pixel ({sum(pixels.values())} "
            f"pixels in {counted(len(pixels), 'label')}): values between two classes, which nobody drew?",
            sorted(pixels, key=lambda name: -pixels[name]),
        )
        for train_id, pixels in sorted(where.items())
        if train_id != IGNORE_INDEX and train_id not in solid
    ]
