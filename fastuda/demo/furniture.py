"""Street furniture and plants: trees, bushes, poles, lamps, traffic lights, signs and bins."""

from __future__ import annotations

import math

from fastuda.demo.canvas import Painter, Point3, shade
from fastuda.demo.palettes import Colour


def tree(painter: Painter, x: float, z: float, high: float) -> None:
    """A trunk and a crown of overlapping leaf clumps, darker below."""
    rng = painter.rng
    trunk, leaf = painter.colour("trunk"), painter.colour("leaf")
    if painter.other_shape:
        _conifer(painter, x, z, high, trunk, leaf)
        return
    crown = high * rng.uniform(0.28, 0.36)
    base = high - 1.7 * crown
    half = 0.02 * high + 0.06
    painter.face(
        ((x - half, 0, z), (x + half, 0, z), (x + 0.7 * half, base, z), (x - 0.7 * half, base, z)), trunk, "vegetation"
    )
    centre = high - crown
    painter.disc((x, centre, z), crown * 0.85, shade(leaf, 0.8), "vegetation")
    _clumps(painter, (x, centre, z), crown, leaf, 16)


def _conifer(painter: Painter, x: float, z: float, high: float, trunk: Colour, leaf: Colour) -> None:
    """A bare foot and tiers of branches, narrower towards the top."""
    foot, wide = 0.14 * high, high * painter.rng.uniform(0.17, 0.26)
    corners = ((x - 0.12, 0, z), (x + 0.12, 0, z), (x + 0.1, foot, z), (x - 0.1, foot, z))
    painter.face(corners, trunk, "vegetation")
    tiers = 5
    for i in range(tiers):
        low, top = foot + (high - foot) * i / (tiers + 1), foot + (high - foot) * (i + 2) / (tiers + 1)
        half = wide * (1 - i / (tiers + 0.5))
        tone = shade(leaf, 0.72 + 0.08 * i)
        painter.face(((x - half, low, z), (x + half, low, z), (x, top, z)), tone, "vegetation")
        painter.face(((x - half, low, z), (x - 0.1 * half, low, z), (x, top, z)), shade(tone, 0.85), "vegetation")


def bush(painter: Painter, x: float, z: float, high: float) -> None:
    """A bush that reaches the ground."""
    leaf = painter.colour("leaf")
    painter.disc((x, high * 0.45, z), high * 0.55, shade(leaf, 0.75), "vegetation", 1.4)
    _clumps(painter, (x, high * 0.5, z), high * 0.6, leaf, 7)


def _clumps(painter: Painter, centre: Point3, radius: float, leaf: Colour, count: int) -> None:
    x, y, z = centre
    draws = painter.rng.random((count, 3))
    for turn, reach, size in draws[draws[:, 1].argsort()[::-1]].tolist():
        angle, distance = 2 * math.pi * turn, radius * (0.35 + 0.5 * reach)
        dx, dy = distance * math.cos(angle), distance * math.sin(angle)
        tone = 0.95 + 0.3 * dy / radius + 0.12 * (size - 0.5)
        painter.disc((x + dx, y + dy, z), radius * (0.25 + 0.25 * size), shade(leaf, tone), "vegetation", 1.1)


def pole(painter: Painter, x: float, z: float, high: float, half: float = 0.09) -> None:
    """A plain upright pole."""
    colour = painter.colour("pole")
    painter.face(((x - half, 0, z), (x + half, 0, z), (x + half, high, z), (x - half, high, z)), colour, "pole")
    painter.face(
        ((x + half * 0.3, 0, z), (x + half, 0, z), (x + half, high, z), (x + half * 0.3, high, z)),
        shade(colour, 0.75),
        "pole",
    )


def lamp(painter: Painter, x: float, z: float) -> None:
    """A street lamp whose arm reaches over the road."""
    high = painter.rng.uniform(5.5, 7.5)
    pole(painter, x, z, high, 0.12)
    inward = -1.6 if x > 0 else 1.6
    colour = painter.colour("pole")
    painter.bar((x, high, z), (x + inward, high + 0.3, z), 0.12, colour, "pole")
    painter.bar((x + inward, high + 0.3, z), (x + 1.4 * inward, high + 0.3, z), 0.28, shade(colour, 1.3), "pole")


def traffic_light(painter: Painter, x: float, z: float) -> None:
    """A three-lamp traffic light on a pole, sometimes with a second one on an arm."""
    rng = painter.rng
    arm = rng.random() < 0.4
    high = 5.6 if arm else 3.4
    pole(painter, x, z, high, 0.11)
    lit = int(rng.integers(3))
    _light_box(painter, x, 3.4, z, lit)
    if arm:
        inward = -3.2 if x > 0 else 3.2
        painter.bar((x, high - 0.2, z), (x + inward, high - 0.1, z), 0.16, painter.colour("pole"), "pole")
        _light_box(painter, x + inward, high + 0.1, z, lit)


def _light_box(painter: Painter, x: float, top: float, z: float, lit: int) -> None:
    half, high = 0.26, 1.2
    box = ((x - half, top - high, z), (x + half, top - high, z), (x + half, top, z), (x - half, top, z))
    painter.face(box, painter.colour("light box"), "traffic light")
    for i, name in enumerate(("lamp red", "lamp amber", "lamp green")):
        colour = painter.colour(name if i == lit else "lamp off")
        painter.disc((x, top - high * (i + 0.5) / 3, z), 0.15, colour, "traffic light")


def traffic_sign(painter: Painter, x: float, z: float) -> None:
    """A round, triangular, square or diamond sign on a pole."""
    rng = painter.rng
    y, size = rng.uniform(2.3, 2.9), rng.uniform(0.42, 0.55)
    pole(painter, x, z, y + size * 0.8, 0.07)
    kind = int(rng.integers(5))
    white = painter.colour("sign white")
    if kind == 0:
        painter.disc((x, y, z), size, painter.colour("sign red"), "traffic sign")
        painter.disc((x, y, z), size * 0.68, white, "traffic sign")
    elif kind == 1:
        _plate(painter, (x, y, z), size * 1.15, painter.colour("sign red"), (90, 210, 330))
        _plate(painter, (x, y, z), size * 0.65, white, (90, 210, 330))
    elif kind == 2:
        _plate(painter, (x, y, z), size * 1.25, painter.colour("sign blue"), (45, 135, 225, 315))
        _plate(painter, (x, y, z), size * 0.5, white, (90, 210, 330))
    elif kind == 3:
        _plate(painter, (x, y, z), size * 1.1, white, (0, 90, 180, 270))
        _plate(painter, (x, y, z), size * 0.85, painter.colour("sign yellow"), (0, 90, 180, 270))
    else:
        painter.disc((x, y, z), size, painter.colour("sign blue"), "traffic sign")
        painter.bar((x - size * 0.5, y, z), (x + size * 0.5, y, z), 0.16, white, "traffic sign")


def _plate(painter: Painter, centre: Point3, radius: float, colour: Colour, degrees: tuple[int, ...]) -> None:
    x, y, z = centre
    turns = [math.radians(d) for d in degrees]
    corners = [(x + radius * math.cos(t), y + radius * math.sin(t), z) for t in turns]
    painter.face(corners, colour, "traffic sign")


def bin_(painter: Painter, x: float, z: float) -> None:
    """A litter bin: a thing that none of the 19 classes names, so its label is void."""
    colour = painter.colour("bin")
    painter.face(((x - 0.3, 0, z), (x + 0.3, 0, z), (x + 0.35, 1.0, z), (x - 0.35, 1.0, z)), colour, "void")
    painter.bar((x - 0.38, 1.0, z), (x + 0.38, 1.0, z), 0.12, shade(colour, 0.7), "void")
