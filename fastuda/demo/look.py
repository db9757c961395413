"""How each of the two drawn domains looks: palettes, textures, light, camera and sensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Colour = tuple[int, int, int]
Range = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """One domain's appearance; a `Range` is sampled uniformly once an image.

    `palette` maps a material to the colours (RGB, 0-255) it may take, `jitter` is the largest change of
    one channel. `grain` and `blotch` are amplitudes (grey levels) of fine and leaf-sized texture by class
    name, with `""` for the rest. `haze` is extinction per metre; `eye` metres above ground; `focal` in
    image widths; `horizon` in image heights; `blur` and `noise` are standard deviations in pixels of a
    512-wide image and in grey levels; `vignette` is the share of light lost in the corners.
    """

    palette: Mapping[str, tuple[Colour, ...]]
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


_SHARED: dict[str, tuple[Colour, ...]] = {
    "tyre": ((24, 24, 26),),
    "light box": ((28, 30, 30),),
    "lamp off": ((70, 60, 50),),
    "lamp red": ((255, 60, 40),),
    "lamp amber": ((255, 190, 40),),
    "lamp green": ((60, 240, 130),),
    "skin": ((232, 190, 160), (200, 150, 115), (120, 82, 60)),
    "hair": ((60, 42, 30), (30, 26, 26), (150, 115, 70)),
    "tail light": ((215, 30, 30),),
    "head light": ((250, 245, 215),),
    "plate": ((230, 230, 225),),
}

SOURCE = Look(
    palette=_SHARED
    | {
        "asphalt": ((88, 90, 98), (96, 96, 102), (80, 82, 92)),
        "marking": ((246, 246, 246),),
        "kerb": ((205, 204, 200),),
        "sidewalk": ((194, 176, 158), (186, 180, 172), (200, 186, 160)),
        "terrain": ((104, 186, 62), (122, 196, 76), (88, 170, 60)),
        "sky top": ((66, 136, 236), (84, 150, 240)),
        "sky low": ((176, 214, 252), (160, 206, 250)),
        "cloud": ((255, 255, 255),),
        "facade": ((230, 198, 138), (214, 118, 84), (150, 188, 216), (238, 228, 204), (196, 148, 176)),
        "roof": ((168, 70, 52), (96, 92, 110)),
        "glass": ((52, 84, 128), (70, 110, 150)),
        "door": ((110, 64, 40), (40, 80, 90)),
        "wall": ((150, 142, 168), (168, 150, 150)),
        "fence": ((146, 92, 50), (186, 130, 84)),
        "pole": ((118, 122, 130), (98, 104, 112)),
        "sign red": ((226, 32, 36),),
        "sign blue": ((24, 84, 214),),
        "sign yellow": ((250, 206, 24),),
        "sign white": ((250, 250, 250),),
        "trunk": ((112, 76, 46),),
        "leaf": ((48, 146, 48), (70, 166, 58), (38, 124, 52)),
        "top": ((226, 60, 60), (50, 110, 226), (246, 206, 60), (244, 244, 244), (150, 60, 190)),
        "trousers": ((36, 54, 116), (46, 44, 50), (150, 120, 84)),
        "helmet": ((240, 240, 240), (230, 50, 40)),
        "car": ((222, 30, 34), (30, 84, 222), (244, 244, 246), (250, 200, 30), (36, 40, 48)),
        "truck": ((240, 120, 30), (40, 120, 204), (206, 40, 60)),
        "cargo": ((238, 238, 240), (208, 218, 230), (246, 226, 160)),
        "bus": ((252, 186, 16), (228, 60, 40)),
        "train": ((30, 158, 140), (60, 190, 160)),
        "trim": ((236, 236, 236),),
        "motorcycle": ((200, 40, 30), (40, 40, 150), (40, 44, 46)),
        "bicycle": ((30, 140, 190), (200, 60, 60), (60, 60, 64)),
        "bin": ((60, 120, 80), (70, 74, 84)),
    },
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
)

TARGET = Look(
    palette=_SHARED
    | {
        "asphalt": ((105, 102, 98), (96, 93, 92), (112, 106, 104)),
        "marking": ((217, 214, 206), (201, 197, 188)),
        "kerb": ((171, 168, 161),),
        "sidewalk": ((162, 153, 145), (154, 144, 136), (174, 166, 156)),
        "terrain": ((121, 143, 71), (115, 138, 69), (125, 140, 77)),
        "sky top": ((128, 160, 208), (150, 172, 204)),
        "sky low": ((212, 220, 223), (199, 210, 221)),
        "cloud": ((191, 192, 197),),
        "facade": ((168, 122, 92), (172, 141, 126), (128, 136, 143), (198, 182, 156), (147, 116, 116)),
        "roof": ((113, 71, 61), (87, 86, 94)),
        "glass": ((56, 70, 86), (80, 97, 111)),
        "door": ((83, 58, 44), (54, 70, 73)),
        "wall": ((134, 129, 141), (145, 130, 127)),
        "fence": ((126, 92, 63), (147, 117, 90)),
        "pole": ((102, 105, 107), (114, 116, 115)),
        "sign red": ((190, 42, 42),),
        "sign blue": ((38, 80, 162),),
        "sign yellow": ((218, 182, 53),),
        "sign white": ((224, 223, 217),),
        "trunk": ((88, 69, 52),),
        "leaf": ((70, 107, 49), (89, 117, 57), (57, 91, 49)),
        "top": ((114, 70, 77), (106, 71, 101), (109, 108, 93), (195, 191, 184), (121, 87, 105)),
        "trousers": ((45, 53, 83), (45, 43, 46), (117, 100, 78)),
        "helmet": ((197, 195, 192), (108, 57, 57)),
        "car": ((102, 50, 56), (89, 107, 150), (204, 204, 203), (154, 88, 40), (45, 56, 81)),
        "truck": ((175, 108, 59), (70, 106, 149), (147, 54, 61)),
        "cargo": ((201, 199, 195), (168, 175, 181), (196, 178, 136)),
        "bus": ((212, 162, 58), (182, 72, 54)),
        "train": ((62, 132, 120), (86, 153, 133)),
        "trim": ((203, 201, 197),),
        "motorcycle": ((135, 49, 42), (49, 50, 102), (43, 45, 47)),
        "bicycle": ((53, 105, 131), (142, 64, 60), (57, 57, 60)),
        "bin": ((64, 94, 71), (71, 74, 80)),
    },
    grain={"": 5.0, "terrain": 7.0, "vegetation": 7.0, "sky": 2.0},
    blotch={"": 4.0, "terrain": 9.0, "road": 3.0, "vegetation": 13.0, "sky": 1.0, "sidewalk": 3.0},
    jitter=24,
    ground_texture=0.09,
    cloud_cover=(-0.32, 1.2),
    shadow=(0.57, 0.75),
    haze=(0.004, 0.01),
    eye=(1.2, 1.5),
    focal=(0.85, 1.0),
    horizon=(0.4, 0.48),
    saturation=(0.73, 1.01),
    exposure=(0.838, 1.056),
    warmth=(-0.044, 0.078),
    gamma=(0.91, 1.26),
    blur=(0.4, 0.84),
    noise=(2.3, 5.4),
    vignette=(0.08, 0.16),
)
