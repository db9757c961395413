"""Which value of a label file is which class, said where files are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastuda_cli.console import say

if TYPE_CHECKING:
    from fastuda.classes import ClassSet, Values


def say_values(classes: ClassSet, kind: Values, out: Path) -> None:
    """The values of the label PNGs in `out`: own classes each by name, Cityscapes' in a word."""
    by_name = classes.values(kind)
    own = classes.names if kind == "train-ids" or classes.all_own else classes.own_names()
    named = ", ".join(f"{by_name[name]} {name}" for name in own)
    if kind == "train-ids" or classes.all_own:
        meaning = f"{'train ids' if kind == 'train-ids' else 'the classes in their order'}: {named}"
    else:
        meaning = "Cityscapes' labelIds" + (f", and for classes that it does not name {named}" if own else "")
    say(f"label values: {meaning} ({out / 'classes.json'})")
