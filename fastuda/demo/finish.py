"""Texture by class, lens, light and sensor: from painted colours to the picture a camera gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fastuda.demo.canvas import LABEL_ID
from fastuda.demo.look import Look, Weave
from fastuda.demo.noise import TILE, tile, window


def finish(
    painted: Image.Image, woven: Image.Image | None, look: Look, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Split a painted RGBA image into the photographed RGB [H, W, 3] and its labelIds [H, W], both uint8.

    `woven` [H, W] uint8 is how strange each pixel's thing looks; without it nothing does.
    """
    pixels = np.asarray(painted)
    label = pixels[..., 3].copy()
    height, width = label.shape
    texture = _amplitude(look.grain)[label] * window("grain", rng, height, width)
    texture += _amplitude(look.blotch)[label] * window("blotch", rng, height, width)
    strange = np.zeros_like(label) if woven is None else np.asarray(woven)
    texture += _woven(look.weave, label, rng) * np.clip(1.5 - strange / np.float32(127.5), 0, 1)
    texture += _woven(look.strange_weave, label, rng) * np.clip(strange / np.float32(127.5) - 0.5, 0, 1)
    textured = np.clip(pixels[..., :3] + texture[..., None], 0, 255).astype(np.uint8)
    image = Image.fromarray(textured, "RGB").convert("RGB", _colour_matrix(look, rng))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*look.blur) * width / 512))
    image = image.point(_tone(rng.uniform(*look.gamma)) * 3)
    return _sensor(np.asarray(image), look, rng), label


def _woven(weave: Weave, label: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    height, width = label.shape
    out = np.zeros((height, width), np.float32)
    for kind in sorted({kind for kind, _ in weave.values()}):
        amplitude = _amplitude({"": 0.0} | {name: size for name, (own, size) in weave.items() if own == kind})
        out += amplitude[label] * window(kind, rng, height, width)
    return out


def _amplitude(by_class: Mapping[str, float]) -> NDArray[np.float32]:
    table = np.full(256, by_class[""], np.float32)
    for name, label_id in LABEL_ID.items():
        table[label_id] = by_class.get(name, by_class[""])
    return table


def _colour_matrix(look: Look, rng: np.random.Generator) -> tuple[float, ...]:
    saturation, exposure, warmth = (rng.uniform(*r) for r in (look.saturation, look.exposure, look.warmth))
    grey = np.array([0.299, 0.587, 0.114]) * (1 - saturation)
    mix = (np.eye(3) * saturation + grey) * np.array([[1 + warmth], [1.0], [1 - 1.5 * warmth]]) * exposure
    return tuple(float(v) for v in np.hstack([mix, np.zeros((3, 1))]).ravel())


def _tone(gamma: float) -> list[int]:
    return [round(255 * (i / 255) ** gamma) for i in range(256)]


def _sensor(image: NDArray[np.uint8], look: Look, rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    light = 1 - np.float32(rng.uniform(*look.vignette) / 2) * (x[None] ** 2 + y[:, None] ** 2)
    rows = (np.arange(height) + rng.integers(TILE)) % TILE
    # Each channel reads the tile at its own offset, which makes their noise independent.
    offsets = rng.integers(0, TILE, 3)
    noise = np.stack([tile("grain")[np.ix_(rows, (np.arange(width) + o) % TILE)] for o in offsets], axis=-1)
    return np.clip(image * light[..., None] + noise * np.float32(rng.uniform(*look.noise)), 0, 255).astype(np.uint8)
