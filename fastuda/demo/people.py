"""Persons, and riders on bicycles and motorcycles, drawn upright at one depth."""

from __future__ import annotations

from itertools import pairwise

from fastuda.demo.canvas import Painter, Point2, Point3, shade
from fastuda.demo.palettes import Colour


def person(painter: Painter, x: float, z: float) -> None:
    """A standing or walking person, seen from the front or back."""
    rng = painter.rng
    size = rng.uniform(0.86, 1.02)
    stride = rng.uniform(0.0, 0.28)
    top, trousers = painter.colour("top"), painter.colour("trousers")
    coat = painter.other_shape

    def part(corners: tuple[Point2, ...], colour: Colour) -> None:
        painter.face([(x + size * dx, size * y, z) for dx, y in corners], colour, "person")

    part(((-0.17, 0.9), (-0.01, 0.9), (0.02 - stride, 0), (-0.14 - stride, 0)), shade(trousers, 0.85))
    part(((0.01, 0.9), (0.17, 0.9), (0.14 + stride, 0), (-0.02 + stride, 0)), trousers)
    swing = stride * 0.5
    part(((-0.24, 1.42), (-0.14, 1.42), (-0.24 - swing, 0.75), (-0.35 - swing, 0.78)), shade(top, 0.8))
    part(((0.24, 1.42), (0.14, 1.42), (0.24 + swing, 0.75), (0.35 + swing, 0.78)), shade(top, 0.8))
    part(((-0.24, 1.46), (0.24, 1.46), (0.19, 0.82), (-0.19, 0.82)), top)
    if coat:
        part(((-0.2, 0.9), (0.2, 0.9), (0.3 + 0.4 * stride, 0.35), (-0.3 - 0.4 * stride, 0.35)), shade(top, 0.92))
    _head(painter, (x, 1.62 * size, z), 0.15 * size, "person", painter.colour("hair"))


def _head(painter: Painter, centre: Point3, radius: float, label: str, cover: Colour) -> None:
    x, y, z = centre
    painter.disc((x, y + 0.3 * radius, z), radius * 1.1, cover, label, 0.9)
    if painter.rng.random() < 0.6:
        painter.disc((x, y - 0.1 * radius, z), radius * 0.8, painter.colour("skin"), label, 0.85)


def two_wheeler(painter: Painter, x: float, z: float, kind: str, squeeze: float, ridden: bool) -> None:
    """A `bicycle` or `motorcycle`, with a rider if `ridden`.

    `squeeze` is 1 for a side view and goes down to about 0.2 seen from behind; its sign is the heading.
    """
    frame = painter.colour(kind)
    tyre = painter.colour("tyre")
    heavy = kind == "motorcycle"
    radius, base = (0.33, 0.68) if heavy else (0.36, 0.56)
    narrow = max(abs(squeeze), 0.3)

    def at(dx: float, y: float) -> Point3:
        return x + dx * squeeze, y, z

    for hub in (-base, base):
        painter.disc(at(hub, radius), radius, tyre, kind, narrow)
        rim = shade(frame, 0.6) if heavy else shade(painter.colour("pole"), 1.1)
        painter.disc(at(hub, radius), radius * (0.5 if heavy else 0.8), rim, kind, narrow)
    if heavy:
        body = (
            at(-0.8, 0.7),
            at(-0.85, 0.95),
            at(-0.1, 0.85),
            at(0.3, 1.1),
            at(0.6, 0.95),
            at(0.35, 0.4),
            at(-0.4, 0.35),
        )
        painter.face(body, frame, kind)
        painter.bar((x - 0.3 * narrow, 0.65, z), (x + 0.3 * narrow, 0.65, z), 0.5, frame, kind)
        painter.bar(at(0.35, 1.0), at(base, radius), 0.12, tyre, kind)
    else:
        joints = (at(-base, radius), at(-0.15, 0.9), at(0.38, 0.9), at(0.0, 0.32), at(-0.15, 0.9))
        for start, end in pairwise(joints):
            painter.bar(start, end, 0.09, frame, kind)
        painter.bar(at(0.36, 1.05), at(base, radius), 0.09, frame, kind)
    grip = 0.28 * (1.2 - narrow) + 0.08
    painter.bar((x + 0.38 * squeeze - grip, 1.08, z), (x + 0.38 * squeeze + grip, 1.08, z), 0.09, tyre, kind)
    if ridden:
        _rider(painter, x, z, squeeze, heavy)


def _rider(painter: Painter, x: float, z: float, squeeze: float, heavy: bool) -> None:
    top, trousers = painter.colour("top"), painter.colour("trousers")
    half = 0.13 + 0.11 * (1 - min(abs(squeeze), 1))
    seat = 0.85 if heavy else 0.95
    lean = 0.3 * squeeze
    hip, shoulder = x - 0.2 * squeeze, x - 0.2 * squeeze + lean
    for side in (-1, 1):
        knee = (x + 0.2 * squeeze + side * half, seat - 0.25, z)
        painter.bar((hip + side * half * 0.6, seat, z), knee, 0.17, trousers, "rider")
        painter.bar(knee, (x + side * half, 0.25, z), 0.15, shade(trousers, 0.85), "rider")
    torso = ((hip - half, seat - 0.05, z), (hip + half, seat - 0.05, z))
    shoulders = ((shoulder + 1.3 * half, seat + 0.6, z), (shoulder - 1.3 * half, seat + 0.6, z))
    painter.face((*torso, *shoulders), top, "rider")
    for side in (-1, 1):
        hand = (x + 0.36 * squeeze + side * half, 1.1, z)
        painter.bar((shoulder + side * half, seat + 0.5, z), hand, 0.1, shade(top, 0.8), "rider")
    _head(painter, (shoulder + 0.08 * squeeze, seat + 0.78, z), 0.16, "rider", painter.colour("helmet"))
