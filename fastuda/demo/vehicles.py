"""Cars, trucks, buses and trams: a side profile pushed out to the vehicle's width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from fastuda.demo.canvas import Painter, Point2, Point3, shade
from fastuda.demo.palettes import Colour

Panel = tuple[str, tuple[Point2, ...]]


@dataclass(frozen=True)
class Body:
    """A vehicle in metres; profiles are (forward, up) points from the tail over the roof to the nose.

    `edges` names the material of each stretch of the profile; `sides`, `tail` and `nose` are panels drawn
    on the flanks (forward, up) and on the two ends (sideways, up). `"body"` is the vehicle's own paint.
    """

    label: str
    width: float
    profile: tuple[Point2, ...]
    edges: tuple[str, ...]
    sides: tuple[Panel, ...]
    tail: tuple[Panel, ...]
    nose: tuple[Panel, ...]
    wheels: tuple[float, ...]
    radius: float = 0.34

    @property
    def length(self) -> float:
        """Length in metres."""
        return self.profile[-1][0] - self.profile[0][0]


def _box(left: float, right: float, low: float, high: float) -> tuple[Point2, ...]:
    return (left, low), (right, low), (right, high), (left, high)


def _pair(material: str, inner: float, outer: float, low: float, high: float) -> tuple[Panel, Panel]:
    return (material, _box(inner, outer, low, high)), (material, _box(-outer, -inner, low, high))


_CAR_TAIL = (*_pair("tail light", 0.52, 0.82, 0.72, 0.9), ("plate", _box(-0.26, 0.26, 0.55, 0.68)))
_CAR_NOSE = (*_pair("head light", 0.45, 0.8, 0.56, 0.74), ("tyre", _box(-0.42, 0.42, 0.4, 0.58)))

SALOON = Body(
    label="car",
    width=1.8,
    profile=(
        (-2.2, 0.28),
        (-2.2, 0.95),
        (-1.8, 1.02),
        (-1.2, 1.48),
        (0.45, 1.48),
        (1.15, 1.0),
        (2.1, 0.84),
        (2.2, 0.28),
    ),
    edges=("body", "body", "glass", "body", "glass", "body", "body"),
    sides=(
        ("glass", ((-1.6, 1.02), (-1.15, 1.4), (-0.45, 1.4), (-0.45, 1.02))),
        ("glass", ((-0.35, 1.02), (-0.35, 1.4), (0.4, 1.4), (0.95, 1.02))),
    ),
    tail=_CAR_TAIL,
    nose=_CAR_NOSE,
    wheels=(-1.35, 1.35),
)
VAN = Body(
    label="car",
    width=1.85,
    profile=((-2.1, 0.28), (-2.15, 1.0), (-1.95, 1.7), (0.6, 1.75), (1.4, 1.1), (2.1, 0.9), (2.2, 0.28)),
    edges=("body", "glass", "body", "glass", "body", "body"),
    sides=(
        ("glass", ((-1.85, 1.1), (-1.75, 1.6), (-0.6, 1.62), (-0.6, 1.1))),
        ("glass", ((-0.5, 1.1), (-0.5, 1.62), (0.5, 1.62), (1.1, 1.1))),
    ),
    tail=_CAR_TAIL,
    nose=_CAR_NOSE,
    wheels=(-1.35, 1.4),
)
COMPACT = Body(
    label="car",
    width=1.7,
    profile=(
        (-1.9, 0.28), (-1.95, 0.9), (-1.85, 1.15), (-1.35, 1.62), (-0.2, 1.66), (0.5, 1.58), (1.2, 1.08), (1.75, 0.92),
        (1.95, 0.6), (1.95, 0.28),
    ),
    edges=("body", "body", "glass", "body", "body", "glass", "body", "body", "body"),
    sides=(
        ("glass", ((-1.6, 1.1), (-1.2, 1.52), (-0.35, 1.56), (-0.35, 1.1))),
        ("glass", ((-0.25, 1.1), (-0.25, 1.56), (0.4, 1.5), (0.95, 1.1))),
    ),
    tail=(*_pair("tail light", 0.6, 0.8, 0.8, 1.3), ("plate", _box(-0.26, 0.26, 0.5, 0.63))),
    nose=(*_pair("head light", 0.5, 0.78, 0.6, 0.82), ("tyre", _box(-0.3, 0.3, 0.36, 0.48))),
    wheels=(-1.25, 1.25),
)  # fmt: skip
TRUCK = Body(
    label="truck",
    width=2.4,
    profile=((-3.6, 0.7), (-3.6, 3.5), (1.2, 3.5), (1.25, 2.7), (2.8, 2.7), (3.2, 1.6), (3.25, 0.5)),
    edges=("cargo", "cargo", "cargo", "body", "glass", "body"),
    sides=(
        ("cargo", _box(-3.6, 1.2, 1.0, 3.5)),
        ("body", _box(-3.4, 1.0, 1.9, 2.5)),
        ("glass", _box(1.7, 2.8, 1.6, 2.4)),
    ),
    tail=(
        ("trim", _box(-0.04, 0.04, 0.9, 3.4)),
        ("trim", _box(-1.1, 1.1, 3.2, 3.35)),
        ("tyre", _box(-1.2, 1.2, 0.7, 0.95)),
        *_pair("tail light", 0.75, 1.1, 0.74, 0.92),
    ),
    nose=(*_pair("head light", 0.7, 1.1, 0.7, 0.95), ("tyre", _box(-0.8, 0.8, 0.9, 1.4))),
    wheels=(-2.6, -1.6, 2.2),
    radius=0.48,
)
BUS = Body(
    label="bus",
    width=2.55,
    profile=((-5.5, 0.35), (-5.5, 2.9), (-5.3, 3.15), (5.2, 3.15), (5.4, 2.9), (5.5, 0.35)),
    edges=("body", "body", "body", "body", "body"),
    sides=(
        *(("glass", _box(a, a + 1.5, 1.4, 2.6)) for a in (-5.2, -3.5, -1.8, -0.1, 1.6)),
        ("glass", _box(3.4, 5.2, 0.5, 2.6)),
        ("trim", _box(-5.4, 3.2, 0.95, 1.15)),
    ),
    tail=(("glass", _box(-1.05, 1.05, 1.7, 2.7)), *_pair("tail light", 0.9, 1.2, 0.8, 1.2)),
    nose=(
        ("glass", _box(-1.15, 1.15, 1.2, 2.6)),
        ("tyre", _box(-0.8, 0.8, 2.7, 2.95)),
        *_pair("head light", 0.75, 1.15, 0.6, 0.85),
    ),
    wheels=(-3.6, 3.2),
    radius=0.48,
)
TRAM = Body(
    label="train",
    width=2.65,
    profile=((-9.0, 0.2), (-8.9, 1.4), (-8.3, 3.3), (-8.0, 3.5), (8.0, 3.5), (8.3, 3.3), (8.9, 1.4), (9.0, 0.2)),
    edges=("body", "glass", "body", "trim", "body", "glass", "body"),
    sides=(
        *(("glass", _box(a, a + 2.0, 1.5, 2.8)) for a in (-7.8, -5.4, -3.0, -0.6, 1.8, 4.2, 6.0)),
        ("trim", _box(-8.8, 8.8, 1.0, 1.3)),
        ("trim", _box(-8.2, 8.2, 3.0, 3.4)),
        ("tyre", _box(-0.15, 0.15, 0.2, 3.5)),
    ),
    tail=(*_pair("tail light", 0.8, 1.15, 0.7, 0.95), ("trim", _box(-1.3, 1.3, 1.05, 1.3))),
    nose=(*_pair("head light", 0.8, 1.15, 0.7, 0.95), ("trim", _box(-1.3, 1.3, 1.05, 1.3))),
    wheels=(),
)


@dataclass(frozen=True)
class Pose:
    """Where a vehicle's middle stands and where it heads: 0 is away from the camera, radians clockwise."""

    x: float
    z: float
    heading: float

    def place(self, forward: float, up: float, sideways: float) -> Point3:
        """World point of a point in the vehicle's own axes."""
        sin, cos = math.sin(self.heading), math.cos(self.heading)
        return self.x + forward * sin + sideways * cos, up, self.z + forward * cos - sideways * sin

    def camera_from(self, bend: float) -> Point2:
        """The camera's (forward, sideways) position in the vehicle's own axes, on a street that bends."""
        x, heading = self.x + bend * self.z**2, self.heading + 2 * bend * self.z
        sin, cos = math.sin(heading), math.cos(heading)
        return -x * sin - self.z * cos, -x * cos + self.z * sin

    def footprint(self, body: Body) -> list[Point3]:
        """Ground polygon a little larger than the vehicle, for its shadow."""
        ahead, aside = body.length / 2 + 0.15, body.width / 2 + 0.2
        corners = ((-ahead, -aside), (ahead, -aside), (ahead, aside), (-ahead, aside))
        return [self.place(forward, 0.0, sideways) for forward, sideways in corners]


def vehicle(painter: Painter, body: Body, pose: Pose) -> None:
    """Draw the vehicle, faces far from the camera first; ends and flanks only where they face it."""
    if painter.other_shape and body.label == "car":
        body = COMPACT
    paint = {"body": painter.colour(body.label), "cargo": painter.colour("cargo"), "glass": painter.colour("glass")}
    half = body.width / 2
    ahead, aside = pose.camera_from(painter.camera.bend)
    _wheels(painter, body, pose)
    stretches = zip(pairwise(body.profile), body.edges, strict=True)
    quads = [
        ([pose.place(*a, -half), pose.place(*a, half), pose.place(*b, half), pose.place(*b, -half)], material)
        for (a, b), material in stretches
    ]
    for points, material in sorted(quads, key=lambda quad: -_distance(quad[0])):
        painter.face(points, shade(_material(painter, paint, material), 0.95), body.label)
    if ahead < body.profile[0][0]:
        _end(painter, body.tail, pose, body.profile[0][0], paint, body.label)
    elif ahead > body.profile[-1][0]:
        _end(painter, body.nose, pose, body.profile[-1][0], paint, body.label)
    if abs(aside) > half:
        _flank(painter, body, pose, math.copysign(half, aside), paint)


def _flank(painter: Painter, body: Body, pose: Pose, sideways: float, paint: dict[str, Colour]) -> None:
    painter.face([pose.place(*p, sideways) for p in body.profile], shade(paint["body"], 0.78), body.label)
    for material, points in body.sides:
        colour = shade(_material(painter, paint, material), 0.85)
        painter.face([pose.place(*p, sideways) for p in points], colour, body.label)
    for wheel in body.wheels:
        hub = (wheel, body.radius, sideways)
        _wheel(painter, pose, hub, body.radius, painter.colour("tyre"), body.label)
        _wheel(painter, pose, hub, body.radius * 0.5, shade(painter.colour("trim"), 0.7), body.label)


def _end(
    painter: Painter, panels: tuple[Panel, ...], pose: Pose, forward: float, paint: dict[str, Colour], label: str
) -> None:
    for material, points in panels:
        corners = [pose.place(forward, up, sideways) for sideways, up in points]
        painter.face(corners, _material(painter, paint, material), label)


def _wheels(painter: Painter, body: Body, pose: Pose) -> None:
    tyre = painter.colour("tyre")
    for wheel in body.wheels:
        for inner in (body.width / 2 - 0.25, -body.width / 2):
            for end in (-0.8 * body.radius, 0.8 * body.radius):
                corners = ((inner, 0.0), (inner + 0.25, 0.0), (inner + 0.25, body.radius), (inner, body.radius))
                points = [pose.place(wheel + end, up, sideways) for sideways, up in corners]
                painter.face(points, tyre, body.label)


def _wheel(painter: Painter, pose: Pose, hub: Point3, radius: float, colour: Colour, label: str) -> None:
    forward, up, sideways = hub
    turns = [2 * math.pi * i / 10 for i in range(10)]
    rim = [pose.place(forward + radius * math.cos(t), up + radius * math.sin(t), sideways) for t in turns]
    painter.face(rim, colour, label)


def _material(painter: Painter, paint: dict[str, Colour], material: str) -> Colour:
    return paint[material] if material in paint else painter.colour(material)


def _distance(points: list[Point3]) -> float:
    return sum(math.hypot(x, z) for x, _, z in points) / len(points)
