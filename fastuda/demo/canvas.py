"""A pinhole camera and a painter that draws image and label in one stroke."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from fastuda.classes import CITYSCAPES_IDS
from fastuda.demo.look import Look
from fastuda.demo.palettes import Colour

LABEL_ID = {name: label_id for label_id, name in CITYSCAPES_IDS.items()} | {"void": 0}
Point2 = tuple[float, float]
Point3 = tuple[float, float, float]
_NEAR = 1.0
_OTHER_SHAPE = 0.55


@dataclass(frozen=True)
class Camera:
    """Looks along +z over a ground plane y = 0 that bends sideways by `bend` · z² (all in metres).

    `focal`, `centre` and `horizon` are in pixels; `eye` is the height above ground.
    """

    width: int
    height: int
    focal: float
    centre: float
    horizon: float
    eye: float
    bend: float

    def project(self, point: Point3) -> Point2:
        """Pixel (column, row) of a world point; points nearer than a metre are pushed out to it."""
        x, y, z = point
        z = max(z, _NEAR)
        return self.centre + self.focal * (x / z + self.bend * z), self.horizon + self.focal * (self.eye - y) / z

    @classmethod
    def sample(cls, rng: np.random.Generator, look: Look, size: tuple[int, int]) -> Camera:
        """A camera of this domain for images of `size` (width, height)."""
        width, height = size
        return cls(
            width=width,
            height=height,
            focal=rng.uniform(*look.focal) * width,
            centre=rng.uniform(0.4, 0.6) * width,
            horizon=rng.uniform(*look.horizon) * height,
            eye=rng.uniform(*look.eye),
            bend=rng.uniform(-1, 1) ** 3 * 0.0015,
        )


class Painter:
    """Draws onto an RGBA image whose fourth channel is the labelId, so both always agree.

    Colours fade with depth towards `air`; nothing is antialiased. `strange` is how strange the thing that is being
    drawn looks, from 0 (as in the other domain) to 1; where `woven` is given, an image [H, W] of the mode "L", it is
    drawn there too, as 0 to 255.
    """

    strange = 0.0

    def __init__(
        self,
        image: Image.Image,
        camera: Camera,
        look: Look,
        rng: np.random.Generator,
        air: Colour,
        haze: float,
        woven: Image.Image | None = None,
    ) -> None:
        self.camera = camera
        self.rng = rng
        self._look = look
        self._air = air
        self._haze = haze
        self._draw = ImageDraw.Draw(image)
        self._woven = None if woven is None else ImageDraw.Draw(woven)

    @property
    def other_shape(self) -> bool:
        """Whether the thing is so strange that its shape is another too."""
        return self.strange > _OTHER_SHAPE

    def colour(self, material: str) -> Colour:
        """One of the material's colours with this domain's jitter, the same for all channels and each."""
        red, green, blue = self._look.colour(material, self.strange, self.rng)
        common, *own = self.rng.uniform(-0.5, 0.5, 4) * self._look.jitter
        return _clip(red + common + own[0]), _clip(green + common + own[1]), _clip(blue + common + own[2])

    def face(self, points: Sequence[Point3], colour: Colour, label: str) -> None:
        """A filled polygon through world points."""
        project = self.camera.project
        corners = [project(p) for p in points]
        self._draw.polygon(corners, self._ink(colour, points[0][2], label))
        if self._woven is not None:
            self._woven.polygon(corners, self._thread())

    def disc(self, centre: Point3, radius: float, colour: Colour, label: str, squeeze: float = 1.0) -> None:
        """A filled disc facing the camera, its width scaled by `squeeze`."""
        x, y, z = centre
        left, top = self.camera.project((x - radius * squeeze, y + radius, z))
        right, bottom = self.camera.project((x + radius * squeeze, y - radius, z))
        self._draw.ellipse((left, top, right, bottom), self._ink(colour, z, label))
        if self._woven is not None:
            self._woven.ellipse((left, top, right, bottom), self._thread())

    def bar(self, start: Point3, end: Point3, thickness: float, colour: Colour, label: str) -> None:
        """A straight bar, `thickness` metres wide but at least one pixel."""
        width = max(1, round(self.camera.focal * thickness / max(start[2], _NEAR)))
        ends = (self.camera.project(start), self.camera.project(end))
        self._draw.line(ends, self._ink(colour, start[2], label), width)
        if self._woven is not None:
            self._woven.line(ends, self._thread(), width)

    def pixels(self, metres: float, z: float) -> float:
        """Size in pixels of `metres` at depth `z`."""
        return self.camera.focal * metres / max(z, _NEAR)

    def _thread(self) -> int:
        return round(255 * self.strange)

    def _ink(self, colour: Colour, z: float, label: str) -> tuple[int, int, int, int]:
        clear = math.exp(-self._haze * z)
        red, green, blue = (_clip(a * clear + b * (1 - clear)) for a, b in zip(colour, self._air, strict=True))
        return red, green, blue, LABEL_ID[label]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (< 1) or lighter (> 1)."""
    return _clip(colour[0] * factor), _clip(colour[1] * factor), _clip(colour[2] * factor)


def _clip(value: float) -> int:
    return min(255, max(0, int(value)))
