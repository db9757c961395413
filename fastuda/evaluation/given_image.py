"""Images as a caller has them at hand: files, Pillow's, numpy's and torch's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastuda.data.reading.images import COLOUR_MODES
from fastuda.data.reading.photograph import Photograph, read_photograph
from fastuda.errors import FastudaError
from fastuda.files.paths import is_file, user_path
from fastuda.printable import on_one_line

GivenImage = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
"""A file's path; a Pillow image; uint8 RGB [H, W, 3], an array of numpy's or a tensor on any device."""

_ACCEPTED = "an image is a path, a Pillow image, or uint8 RGB [H, W, 3] as a numpy array or torch tensor"


def photograph_of(image: GivenImage) -> Photograph:
    """The image as 8-bit RGB. A file is turned upright as its EXIF tag says; a Pillow image is taken as it stands.

    Raises FastudaError for a file that is not there, SampleError for one that cannot be decoded, TypeError for another
    kind of object or of numbers, ValueError for another shape or for pixels that are no colours.
    """
    if isinstance(image, str | os.PathLike):
        path = user_path(image)
        if not is_file(path):
            there = "is no file" if os.path.lexists(path) else "no such image"
            raise FastudaError(f"{on_one_line(path)}: {there}")
        return read_photograph(path)
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    return Photograph(Image.fromarray(_pixels(image)))


def several(images: object) -> Sequence[Any] | None:
    """The images of a list or another sequence, or of a batch [B, H, W, 3]; None for a single one, whatever it is."""
    if isinstance(images, Sequence) and not isinstance(images, str):
        return images
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        return [images[i] for i in range(len(images))]
    return None


def _of_pillow(image: Image.Image) -> Photograph:
    if image.mode not in COLOUR_MODES:
        raise ValueError(f"a Pillow image of mode {image.mode} came, whose pixels are no colours; convert it to RGB")
    if 0 in image.size:
        raise ValueError(f"a Pillow image of {image.width}×{image.height} pixels came; it holds none")
    image.load()
    own = image._new(image.im)  # shares the pixels; what it knows besides them is its own
    own.info.pop("transparency", None)
    return Photograph(own)


def _pixels(image: object) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray | Tensor):
        raise TypeError(f"{type(image).__name__} came; {_ACCEPTED}")
    shape = list(image.shape)
    if image.dtype not in (np.uint8, torch.uint8):
        kind = str(image.dtype).removeprefix("torch.")
        raise TypeError(f"{kind} {shape} came, and pixels are uint8 from 0 to 255; {_ACCEPTED}")
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        hint = "; move its channels to the end" if len(shape) == 3 and shape[0] == 3 else ""
        raise ValueError(f"uint8 {shape} came{hint}; {_ACCEPTED}, or a batch [B, H, W, 3] of such")
    return np.ascontiguousarray(image.detach().cpu().numpy() if isinstance(image, Tensor) else image)
