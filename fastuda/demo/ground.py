"""Sky, road, sidewalks and terrain: each pixel's ray meets the ground plane or the sky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fastuda.demo.canvas import LABEL_ID, Camera, Point3
from fastuda.demo.look import Look
from fastuda.demo.noise import TILE, tile, window

_SURFACES = ("asphalt", "marking", "kerb", "sidewalk", "terrain", "pole")
_SURFACE_LABELS = ("road", "road", "sidewalk", "sidewalk", "terrain", "road")
_FAR = 400.0


@dataclass(frozen=True)
class Street:
    """Cross-section of the street in metres, the camera at x = 0 in its lane.

    `road` and `facade` are the (left, right) edges; `lanes` the x of dashed lines, `middle` of the solid
    one; `strip` the (left, right) x where the sidewalk ends and terrain begins, at `facade` if there is
    none; `crossing` the depths between which another road crosses, if any; `rails` the x of tram tracks;
    `sun` the x from which, going outward, the houses on that side shade the ground.
    """

    road: tuple[float, float]
    strip: tuple[float, float]
    facade: tuple[float, float]
    lanes: tuple[float, ...]
    middle: float
    crossing: tuple[float, float] | None
    rails: tuple[float, ...]
    sun: float


@dataclass(frozen=True)
class Sky:
    """The sky's colour at the horizon, RGB, which is the air's too, and how strange it looks, 0 to 1."""

    low: NDArray[np.float32]
    strange: float


def paint_ground(
    camera: Camera, street: Street, look: Look, rng: np.random.Generator, sky: Sky, haze: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Sky and ground: [H, W, 4] uint8, RGB and labelId; and how strange each pixel's surface looks, [H, W] uint8."""
    out = np.empty((camera.height, camera.width, 4), np.uint8)
    strange = np.zeros((camera.height, camera.width), np.uint8)
    first = int(camera.horizon) + 1
    out[:first, :, :3] = _sky(camera, look, rng, first, sky)
    out[:first, :, 3] = LABEL_ID["sky"]
    rows = np.arange(first, camera.height, dtype=np.float32)[:, None]
    z = np.minimum(camera.focal * camera.eye / (rows - camera.horizon), _FAR).astype(np.float32)
    columns = np.arange(camera.width, dtype=np.float32)[None]
    x = ((columns - camera.centre) / camera.focal - camera.bend * z) * z
    surface = _surface(street, x, z)
    colours, strangeness = _surfaces(look, rng)
    far = (z > rng.uniform(6, 30)).astype(np.intp) * np.ones(surface.shape, np.intp)
    gain = _texture(street, look, x, z, surface, rng)
    clear = np.exp(-haze * z)[..., None]
    rgb = colours[far, surface] * (gain[..., None] * clear) + sky.low * (1 - clear)
    out[first:, :, :3] = np.clip(rgb, 0, 255)
    out[first:, :, 3] = np.array([LABEL_ID[name] for name in _SURFACE_LABELS], np.uint8)[surface]
    strange[:first] = round(255 * sky.strange)
    strange[first:] = np.round(255 * strangeness[far, surface])
    return out, strange


def _surfaces(look: Look, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours [2, S, 3] of the surfaces near by and farther on, and how strange they look [2, S]."""
    strange = np.array([[look.strangeness(rng) for _ in _SURFACES] for _ in range(2)], np.float32)
    colours = [[_pick(look, name, rng, float(s)) for name, s in zip(_SURFACES, row, strict=True)] for row in strange]
    if not look.strange:
        colours[1] = colours[0]
    return np.array(colours, np.float32), strange


def cast_shadows(
    ground: NDArray[np.uint8], camera: Camera, footprints: list[list[Point3]], strength: float
) -> Image.Image:
    """Darken the ground (in place) under each footprint polygon; labels stay. Returns an RGBA image."""
    mask = Image.new("L", (camera.width, camera.height), 255)
    draw = ImageDraw.Draw(mask)
    for footprint in footprints:
        draw.polygon([camera.project(p) for p in footprint], round(255 * strength))
    light = np.asarray(mask.filter(ImageFilter.BoxBlur(camera.width / 512)), np.uint16)
    first = int(camera.horizon) + 1
    ground[first:, :, :3] = ground[first:, :, :3] * light[first:, :, None] // 255
    return Image.fromarray(ground, "RGBA")


def _sky(camera: Camera, look: Look, rng: np.random.Generator, rows: int, sky: Sky) -> NDArray[np.float32]:
    height = (np.linspace(1, 0, rows, dtype=np.float32) ** 0.8)[:, None, None]
    blue = sky.low + (_pick(look, "sky top", rng, sky.strange) - sky.low) * height
    density = window("cloud", rng, rows, camera.width, 2.5) - 1.2 + rng.uniform(*look.cloud_cover)
    cover = np.clip(density, 0, 1)[..., None] * (0.3 + 0.7 * height)
    out: NDArray[np.float32] = np.clip(blue + (_pick(look, "cloud", rng, sky.strange) - blue) * cover, 0, 255)
    return out


def _surface(street: Street, x: NDArray[np.float32], z: NDArray[np.float32]) -> NDArray[np.uint8]:
    kind = {name: i for i, name in enumerate(_SURFACES)}
    left, right = street.road
    out = np.full(x.shape, kind["asphalt"], np.uint8)
    along = (z % 9 < 4.5) & (z < 90)
    for lane in street.lanes:
        out[(np.abs(x - lane) < 0.09) & along] = kind["marking"]
    out[np.abs(x - street.middle) < 0.09] = kind["marking"]
    for rail in street.rails:
        out[np.abs(x - rail) < 0.07] = kind["pole"]
    beside = (x < left) | (x > right)
    if street.crossing is not None:
        start, end = street.crossing
        zebra = (z > start - 4.5) & (z < start - 1) & ~beside
        out[zebra & (x % 1.0 < 0.5)] = kind["marking"]
        inside = (z > start) & (z < end)
        out[inside & ~beside] = kind["asphalt"]
        beside &= ~inside
    out[beside] = kind["sidewalk"]
    out[beside & (((x < left) & (x > left - 0.25)) | ((x > right) & (x < right + 0.25)))] = kind["kerb"]
    out[beside & ((x < street.strip[0]) | (x > street.strip[1]))] = kind["terrain"]
    return out


def _texture(
    street: Street,
    look: Look,
    x: NDArray[np.float32],
    z: NDArray[np.float32],
    surface: NDArray[np.uint8],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    u, v = rng.integers(0, TILE, 2)
    # Worn patches and tyre tracks lie in the plane, so they shrink with distance as the road does.
    patches = tile("cloud")[(z * 6).astype(np.intp) % TILE, ((x * 10).astype(np.intp) + u) % TILE]
    near = 1 / (1 + z / 25)
    gain: NDArray[np.float32] = 1 + look.ground_texture * patches * near
    grain = tile("blotch")[((z * 30).astype(np.intp) + v) % TILE, (x * 30).astype(np.intp) % TILE]
    gain += 0.3 * look.ground_texture * grain * near
    joints = ((x % 1.2 < 0.06) | (z % 1.2 < 0.08)) & (surface == _SURFACES.index("sidewalk")) & (z < 22)
    gain[joints] *= 0.88
    sunless = (x < street.sun) if street.sun < 0 else (x > street.sun)
    gain[sunless] *= 0.5 + 0.5 * look.shadow[0]
    return gain


def _pick(look: Look, material: str, rng: np.random.Generator, strange: float) -> NDArray[np.float32]:
    base = np.array(look.colour(material, strange, rng), np.float32)
    return base + np.float32(rng.uniform(-0.5, 0.5) * look.jitter)
