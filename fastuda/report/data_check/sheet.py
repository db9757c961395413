"""The pairs that a check found most suspicious, as a picture: image, label, one over the other."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fastuda.classes import IGNORE_INDEX, ClassSet
from fastuda.data.checking.report import CheckReport
from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.images import read_colour, read_file
from fastuda.data.reading.labels import RawLabel, id_table, read_label
from fastuda.recipe import Domain
from fastuda.report.pictures import Pixels, grid, overlay

_WIDTH, _HIGHEST = 480, 1920


def suspects_sheet(report: CheckReport, domain: Domain, classes: ClassSet) -> Image.Image | None:
    """A row a pair: the image, the label in the classes' colours, and both; values that are no class are white.

    None when no pair is suspicious, or none can be read any more.
    """
    rows: list[list[Pixels]] = []
    for suspect in report.suspects:
        image_path, label_path = suspect.paths()
        try:
            image = read_colour(read_file(image_path), image_path)
            raw = read_label(label_path, domain.layout)
        except SampleError:
            continue
        table = id_table(domain, classes, label_path)
        label = table.train_ids[raw]
        height = min(max(1, round(image.height * _WIDTH / image.width)), _HIGHEST)
        pixels = np.asarray(image.resize((_WIDTH, height)))
        small = np.asarray(Image.fromarray(label).resize((_WIDTH, height), Image.Resampling.NEAREST))
        rows.append(
            [pixels, _coloured(raw, label, table.known, classes, (_WIDTH, height)), overlay(pixels, small, classes)]
        )
    return grid(["image", "label (grey: ignored, white: no class)", "both"], rows, classes) if rows else None


def _coloured(
    raw: RawLabel,
    label: Pixels,
    known: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    classes: ClassSet,
    size: tuple[int, int],
) -> Pixels:
    colours = classes.colour_table()[label]
    colours[label == IGNORE_INDEX] = (96, 96, 96)
    colours[~known[raw]] = (255, 255, 255)
    return np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.NEAREST))
