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


def paint_ground(
    camera: Camera, street: Street, look: Look, rng: np.random.Generator, air: NDArray[np.float32], haze: float
) -> NDArray[np.uint8]:
    """Sky and ground [H, W, 4] uint8: RGB and labelId."""
    out = np.empty((camera.height, camera.width, 4), np.uint8)
    first = int(camera.horizon) + 1
    out[:first, :, :3] = _sky(camera, look, rng, first, air)
    out[:first, :, 3] = LABEL_ID["sky"]
    rows = np.arange(first, camera.height, dtype=np.float32)[:, None]
    z = np.minimum(camera.focal * camera.eye / (rows - camera.horizon), _FAR).astype(np.float32)
    columns = np.arange(camera.width, dtype=np.float32)[None]
    x = ((columns - camera.centre) / camera.focal - camera.bend * z) * z
    surface = _surface(street, x, z)
    colours = np.array([_pick(look, name, rng) for name in _SURFACES], np.float32)
    gain = _texture(street, look, x, z, surface, rng)
    clear = np.exp(-haze * z)[..., None]
    rgb = colours[surface] * (gain[..., None] * clear) + air * (1 - clear)
    out[first:, :, :3] = np.clip(rgb, 0, 255)
    out[first:, :, 3] = np.array([LABEL_ID[name] for name in _SURFACE_LABELS], np.uint8)[surface]
    return out


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


def _sky(
    camera: Camera, look: Look, rng: np.random.Generator, rows: int, air: NDArray[np.float32]
) -> NDArray[np.float32]:
    height = (np.linspace(1, 0, rows, dtype=np.float32) ** 0.8)[:, None, None]
    sky = air + (_pick(look, "sky top", rng) - air) * height
    density = window("cloud", rng, rows, camera.width, 2.5) - 1.2 + rng.uniform(*look.cloud_cover)
    cover = np.clip(density, 0, 1)[..., None] * (0.3 + 0.7 * height)
    out: NDArray[np.float32] = np.clip(sky + (_pick(look, "cloud", rng) - sky) * cover, 0, 255)
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


def _pick(look: Look, material: str, rng: np.random.Generator) -> NDArray[np.float32]:
    colours = look.palette[material]
    base = np.array(colours[int(rng.integers(len(colours)))], np.float32)
    return base + np.float32(rng.uniform(-0.5, 0.5) * look.jitter)
