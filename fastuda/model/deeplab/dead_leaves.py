"""Pictures with the statistics of photographs: discs of all sizes that hide one another (Lee, Mumford & Huang, 2001).

With radii of a density r⁻³ they look alike at every scale, as photographs do, and have their 1/f² spectrum.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

_FINER = 2
"""Discs are drawn on a grid of so many points along a pixel."""
_SOFTNESS = 3
"""Pixels along a square whose mean a pixel becomes, as a lens and a camera's reconstruction soften it."""
_RADII = (6.0, 320.0)
"""The smallest and the largest, in points of that grid."""
_LAYERS = 3.0
"""Discs over a point, in the mean: none lies over e⁻³ of them, which keep the ground's colour."""
_MEAN = np.array([124.0, 116.0, 104.0])
"""RGB, about the mean of ImageNet's photographs."""
_AXES = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-0.5, 1.0, -0.5]])
"""Along which the colours of photographs vary apart from one another (Ruderman, Cronin & Chiao, 1998): light, and
little of red against blue and of green against both."""
_DEVIATIONS = np.array([70.0, 17.0, 7.0])

_Values = npt.NDArray[np.float64]


def dead_leaves(count: int, side: int, seed: int = 0) -> Tensor:
    """float32 RGB [count, 3, side, side] of 0 to 255; the same for the same arguments, whatever else draws."""
    random = np.random.default_rng(seed)
    around = _SOFTNESS // 2
    pictures = np.stack([_picture(random, (side + 2 * around) * _FINER) for _ in range(count)])
    sharp = F.avg_pool2d(torch.from_numpy(pictures).permute(0, 3, 1, 2), _FINER)
    return F.avg_pool2d(sharp, _SOFTNESS, stride=1)


def _picture(random: np.random.Generator, side: int) -> npt.NDArray[np.float32]:
    """float32 RGB [side, side, 3]: discs from the hindmost to the foremost."""
    smallest, largest = _RADII
    mean_area = 2 * np.pi * smallest**2 * np.log(largest / smallest)
    number = round(_LAYERS * side**2 / mean_area)
    # The inverse of the distribution function of a density r⁻³ between two radii.
    spread = 1 - (smallest / largest) ** 2
    radii = smallest / np.sqrt(1 - spread * random.random(number))
    centres = random.random((number, 2)) * (side + 2 * radii[:, None]) - radii[:, None]
    colours = _colours(random, number)
    picture = np.empty((side, side, 3), np.float32)
    picture[:] = _colours(random, 1)
    points = np.arange(side)
    for radius, (row, column), colour in zip(radii, centres, colours, strict=True):
        rows = points[max(0, int(row - radius)) : max(0, int(row + radius) + 2)]
        columns = points[max(0, int(column - radius)) : max(0, int(column + radius) + 2)]
        if len(rows) and len(columns):
            inside = (rows[:, None] - row) ** 2 + (columns - column) ** 2 < radius**2
            picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][inside] = colour
    return picture


def _colours(random: np.random.Generator, number: int) -> _Values:
    """[number, 3] of 0 to 255."""
    along: _Values = random.standard_normal((number, 3)) * _DEVIATIONS
    colours: _Values = np.clip(_MEAN + along @ _AXES, 0, 255)
    return colours
