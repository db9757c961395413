"""How each of the two drawn domains looks: colours, textures, light, camera and sensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fastuda.demo import palettes
from fastuda.demo.palettes import Colour, Palette

Range = tuple[float, float]
Weave = Mapping[str, tuple[str, float]]


@dataclass(frozen=True)
class Look:
    """One domain's appearance; a `Range` is sampled uniformly once an image.

    `palette` maps a material to the colours (RGB, 0-255) it may take, `jitter` is the largest change of
    one channel. `grain` and `blotch` are amplitudes (grey levels) of fine and leaf-sized texture by class
    name, with `""` for the rest. `haze` is extinction per metre; `eye` metres above ground; `focal` in
    image widths; `horizon` in image heights; `blur` and `noise` are standard deviations in pixels of a
    512-wide image and in grey levels; `vignette` is the share of light lost in the corners.
    """

    palette: Palette
    grain: Mapping[str, float]
    blotch: Mapping[str, float]
    jitter: int
    ground_texture: float
    cloud_cover: Range
    shadow: Range
    haze: Range
    eye: Range
    focal: Range
    horizon: Range
    saturation: Range
    exposure: Range
    warmth: Range
    gamma: Range
    blur: Range
    noise: Range
    vignette: Range = field(default=(0.0, 0.0))
    strange: Palette = field(default_factory=dict)
    """By material, the colours of things that look strange; empty where nothing does."""
    weave: Weave = field(default_factory=dict)
    """By class name, the noise tile that things of it are textured with, and its amplitude in grey levels."""
    strange_weave: Weave = field(default_factory=dict)
    """Likewise of things that look strange; both textures fade into one another."""
    familiar: float = 1.0
    """Share of the things that hardly look strange: those from which labels can spread."""

    def strangeness(self, rng: np.random.Generator) -> float:
        """How strange the next thing looks: 0 to 1, and below a quarter for a share `familiar` of all."""
        if not self.strange:
            return 0.0
        return rng.uniform(0.0, 0.25) if rng.random() < self.familiar else rng.uniform(0.25, 1.0)

    def colour(self, material: str, strange: float, rng: np.random.Generator) -> Colour:
        """One of the material's colours, as far on the way to one of its strange ones as `strange` says."""
        here = _one(self.palette[material], rng)
        if material not in self.strange:
            return here
        there = _one(self.strange[material], rng)
        red, green, blue = (round(a + strange * (b - a)) for a, b in zip(here, there, strict=True))
        return red, green, blue


def _one(colours: tuple[Colour, ...], rng: np.random.Generator) -> Colour:
    return colours[int(rng.integers(len(colours)))]


_WEAVE: Weave = {
    "building": ("courses", 14.0),
    "wall": ("courses", 14.0),
    "fence": ("slats", 10.0),
    "sidewalk": ("cobbles", 8.0),
    "vegetation": ("cobbles", 12.0),
    "terrain": ("cobbles", 12.0),
    "person": ("courses", 12.0),
    "rider": ("slats", 12.0),
    "truck": ("slats", 14.0),
    "bus": ("courses", 8.0),
    "train": ("slats", 8.0),
}

SOURCE = Look(
    palette=palettes.SOURCE,
    grain={"": 2.5, "sky": 1.0},
    blotch={"": 2.0, "sky": 0.5, "vegetation": 8.0, "terrain": 5.0},
    jitter=30,
    ground_texture=0.05,
    cloud_cover=(-0.5, 1.2),
    shadow=(0.45, 0.6),
    haze=(0.001, 0.005),
    eye=(1.4, 1.7),
    focal=(0.95, 1.1),
    horizon=(0.44, 0.52),
    saturation=(0.85, 1.15),
    exposure=(0.85, 1.08),
    warmth=(-0.04, 0.05),
    gamma=(0.85, 1.2),
    blur=(0.2, 0.6),
    noise=(0.5, 3.0),
    weave=_WEAVE,
)

TARGET = replace(
    SOURCE,
    palette=palettes.TARGET,
    grain={"": 4.0, "sky": 1.5},
    haze=(0.002, 0.006),
    eye=(1.2, 1.5),
    focal=(0.85, 1.0),
    horizon=(0.4, 0.48),
    saturation=(0.75, 1.05),
    warmth=(-0.04, 0.06),
    noise=(1.0, 4.0),
    vignette=(0.0, 0.1),
    strange=palettes.STRANGE,
    strange_weave={
        "road": ("cobbles", 12.0),
        "sidewalk": ("courses", 12.0),
        "building": ("slats", 14.0),
        "wall": ("slats", 14.0),
        "fence": ("courses", 12.0),
        "vegetation": ("slats", 14.0),
        "terrain": ("courses", 12.0),
        "person": ("slats", 16.0),
        "rider": ("courses", 16.0),
        "car": ("courses", 8.0),
        "truck": ("courses", 14.0),
        "bus": ("slats", 14.0),
        "train": ("cobbles", 12.0),
    },
    familiar=0.35,
)
