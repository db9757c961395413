"""Pictures for people: label overlays, and grids of pictures with titles and a legend."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fastuda.classes import ClassSet
from fastuda.files.disk import write_atomic

Pixels = NDArray[np.uint8]

_MARGIN = 6
_TITLE = 22
_FONT_SIZE = 14
_CELL_WIDTH = 480


def overlay(image: Pixels, label: Pixels, classes: ClassSet, strength: float = 0.55) -> Pixels:
    """Image uint8 [H, W, 3] with its label's colours laid over; ignored pixels stay as they are."""
    table = _blended(classes, strength)
    row = label.astype(np.uint16)[..., None] * np.uint16(256) + image
    return np.stack([table[channel].take(row[..., channel]) for channel in range(3)], -1)


@functools.lru_cache(maxsize=8)
def _blended(classes: ClassSet, strength: float) -> NDArray[np.uint8]:
    """[3, 256 · 256]: by channel, train id and brightness, the brightness with the class's colour laid over."""
    brightness = np.arange(256)
    blended = brightness * (1 - strength) + classes.colour_table().T[..., None] * strength
    table = blended.astype(np.uint8)
    table[:, len(classes) :] = brightness
    return table.reshape(3, -1)


def grid(columns: list[str], rows: list[list[Pixels]], legend: ClassSet | None = None) -> Image.Image:
    """Titled columns of images uint8 [H, W, 3], each scaled to one width, and a legend of class colours."""
    cells = [[_scaled(cell) for cell in row] for row in rows]
    height = max(cell.height for row in cells for cell in row)
    legend_lines = _legend_lines(legend, len(columns)) if legend else 0
    sheet = Image.new(
        "RGB",
        (
            len(columns) * (_CELL_WIDTH + _MARGIN) + _MARGIN,
            _TITLE + len(cells) * (height + _MARGIN) + _MARGIN + legend_lines * _TITLE,
        ),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for i, title in enumerate(columns):
        draw.text((_MARGIN + i * (_CELL_WIDTH + _MARGIN), 3), title, "black", font)
    for j, row in enumerate(cells):
        for i, cell in enumerate(row):
            sheet.paste(cell, (_MARGIN + i * (_CELL_WIDTH + _MARGIN), _TITLE + j * (height + _MARGIN)))
    if legend:
        _draw_legend(draw, legend, sheet.height - legend_lines * _TITLE, len(columns), font)
    return sheet


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a PNG whole or not at all; raises FastudaError when the disk refuses."""
    content = io.BytesIO()
    picture.save(content, "png")
    write_atomic(path, content.getvalue())


def _scaled(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels)
    return image.resize((_CELL_WIDTH, round(image.height * _CELL_WIDTH / image.width)), Image.Resampling.BILINEAR)


def _legend_columns(num_columns: int) -> int:
    return max(1, num_columns * (_CELL_WIDTH + _MARGIN) // 150)


def _legend_lines(classes: ClassSet, num_columns: int) -> int:
    return -(-len(classes) // _legend_columns(num_columns))


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    classes: ClassSet,
    top: int,
    num_columns: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    per_line = _legend_columns(num_columns)
    for i, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        x, y = _MARGIN + (i % per_line) * 150, top + (i // per_line) * _TITLE
        draw.rectangle((x, y + 3, x + 14, y + 17), fill=colour)
        draw.text((x + 20, y + 2), name, "black", font)
