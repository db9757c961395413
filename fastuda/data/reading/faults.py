"""What can be wrong with one file of a data set, and the error that carries it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fastuda.errors import FastudaError
from fastuda.printable import on_one_line

FaultKind = Literal[
    "no label", "no image", "two files", "empty", "truncated", "undecodable", "too large", "mode", "lossy", "size",
    "turned", "value", "train ids", "damaged", "name",
]  # fmt: skip
"""`two files`: which of them is the sample's?; `too large`: above the pixel limit; `mode`: pixels of a kind that cannot
be used; `lossy`: a label in a format that invents values; `size`: image and label differ; `turned`: they differ
because of the image's EXIF tag; `value`: a label value that the layout does not know; `train ids`: a label that was
converted already; `damaged`: a packed file that is not what was written and cannot be made anew; `name`: too long for
what is written of the file."""


class SampleError(FastudaError):
    """A file that cannot be used as it is; `kind` sorts it, `path` names it, `detail` says what and what to do."""

    def __init__(self, kind: FaultKind, path: Path, detail: str) -> None:
        super().__init__(f"{on_one_line(path)}: {detail}")
        self.kind: FaultKind = kind
        self.path = path
        self.detail = detail


def size_fault(
    label: Path, image_size: tuple[int, int], label_size: tuple[int, int], orientation: int = 1
) -> SampleError:
    """The fault of a pair whose sizes (width, height) differ; `orientation` is the image's EXIF tag."""
    sizes = ["{}x{}".format(*size) for size in (label_size, image_size)]
    if orientation >= 5 and label_size == image_size[::-1]:
        return SampleError(
            "turned", label,
            f"the label is {sizes[0]}, and its photograph {sizes[1]} once it is turned upright as its EXIF tag says "
            f"(orientation {orientation}): turn the label too, or take the tag off if the stored pixels are upright",
        )  # fmt: skip
    return SampleError("size", label, f"the label is {sizes[0]} and its image {sizes[1]}")
