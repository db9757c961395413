"""Vision Transformers' widths and depths, and the images that fit their patches; no torch."""

from __future__ import annotations

from typing import Literal, NamedTuple

ViTVariant = Literal["small", "base", "large"]


class ViTShape(NamedTuple):
    """How wide and deep a Vision Transformer is, and after which blocks heads of several maps read it."""

    width: int
    depth: int
    heads: int
    read: tuple[int, int, int, int]


SHAPES: dict[ViTVariant, ViTShape] = {
    "small": ViTShape(384, 12, 6, (2, 5, 8, 11)),
    "base": ViTShape(768, 12, 12, (2, 5, 8, 11)),
    "large": ViTShape(1024, 24, 16, (4, 11, 17, 23)),
}


def patches(size: tuple[int, int], patch: int) -> int:
    """Patches of an image of `size` (width, height)."""
    return (size[0] // patch) * (size[1] // patch)


def no_whole_patches(size: tuple[int, int], patch: int) -> str | None:
    """Why an image of `size` (width, height) is none of patches, with the nearest that are; None where it is."""
    if all(side >= patch and side % patch == 0 for side in size):
        return None
    below = [max(patch, side // patch * patch) for side in size]
    above = [max(patch, -(-side // patch) * patch) for side in size]
    nearest = f"{below} is" if below == above else f"{below} and {above} are"
    return f"sides have to be multiples of {patch}, the side of the network's patches: {nearest}"
