"""Composes one street scene: what stands where, painted from far to near."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastuda.demo import furniture, people, sides, vehicles
from fastuda.demo.canvas import Camera, Painter, Point3
from fastuda.demo.domains import Domain
from fastuda.demo.finish import finish
from fastuda.demo.ground import Sky, Street, cast_shadows, paint_ground
from fastuda.demo.town import Town

_DEPTH = 130.0


@dataclass(frozen=True)
class Thing:
    """Something at depth `z` (metres), the call that paints it, and the ground it shades."""

    z: float
    paint: Callable[[Painter], None]
    footprint: list[Point3] = field(default_factory=list)


def draw_scene(
    rng: np.random.Generator, domain: Domain, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One scene of `size` (width, height): RGB image [H, W, 3] and labelIds [H, W], both uint8."""
    look, town = domain.look, domain.town
    camera = Camera.sample(rng, look, size)
    street = _street(rng, town)
    haze = rng.uniform(*look.haze)
    strange = look.strangeness(rng)
    air = look.colour("sky low", strange, rng)
    sky = Sky(np.array(air, np.float32), strange)
    things = sorted(
        [*_traffic(rng, street, town), *_furniture(rng, street, town), *_people(rng, street, town)], key=lambda t: -t.z
    )
    ground, weave = paint_ground(camera, street, look, rng, sky, haze)
    woven = Image.fromarray(weave) if look.strange else None
    footprints = [thing.footprint for thing in things if thing.footprint]
    image = cast_shadows(ground, camera, footprints, rng.uniform(*look.shadow))
    painter = Painter(image, camera, look, rng, air, haze, woven)
    sides.skyline(painter)
    for thing in [*sorted(_sides(rng, street, town), key=lambda t: -t.z), *things]:
        painter.strange = look.strangeness(rng)
        thing.paint(painter)
    return finish(image, woven, look, rng)


def _street(rng: np.random.Generator, town: Town) -> Street:
    parking = 2.3 * (rng.random(2) < town.parking)
    tram = rng.random() < town.tram
    oncoming = 2 if tram else int(rng.integers(*town.lanes))
    middle = -town.lane / 2 - 0.1
    left, right = middle - town.lane * oncoming - parking[0], town.lane / 2 + 0.3 + parking[1]
    walk = rng.uniform(*town.walk, 2)
    green = rng.uniform(1.5, 5.0, 2) * (rng.random(2) < town.green)
    strip = (left - walk[0], right + walk[1])
    start = rng.uniform(14, 45)
    rail = middle - 0.5 * town.lane
    return Street(
        road=(left, right),
        strip=strip,
        facade=(strip[0] - green[0], strip[1] + green[1]),
        lanes=tuple(middle - town.lane * i for i in range(1, oncoming)),
        middle=middle,
        crossing=(start, start + rng.uniform(7, 12)) if rng.random() < town.crossing else None,
        rails=(rail - 0.7, rail + 0.7) if tram else (),
        sun=rng.choice([-1, 1]) * rng.uniform(1.5, 8.0),
    )


def _sides(rng: np.random.Generator, street: Street, town: Town) -> Iterator[Thing]:
    for x in street.facade:
        lit = (x < 0) != (street.sun < 0)
        z = 1.0
        while z < _DEPTH:
            far = z + rng.uniform(8, 20)
            if street.crossing is not None and z < street.crossing[1] and far > street.crossing[0]:
                if z >= street.crossing[0] - 3:
                    z = street.crossing[1]
                    continue
                far = street.crossing[0]
            yield from _stretch(rng, town, x, z, far, lit)
            z = far


def _stretch(rng: np.random.Generator, town: Town, x: float, near: float, far: float, lit: bool) -> Iterator[Thing]:
    kind = rng.choice(("building", "wall", "fence", "hedge"), p=town.stretch)
    if kind == "building":
        yield Thing(near, partial(sides.building, x=x, near=near, far=far, lit=lit))
        return
    if kind == "hedge":
        yield Thing(near, partial(sides.hedge, x=x, near=near, far=far))
        return
    back = x + (5 if x > 0 else -5)
    built = rng.random() < 0.4
    # A hair deeper than the wall in front, so that the sort paints it first.
    if built:
        yield Thing(near + 0.1, partial(sides.building, x=back, near=near, far=far, lit=lit))
    else:
        yield Thing(near + 0.1, partial(sides.hedge, x=back, near=near, far=far))
    if kind == "wall":
        yield Thing(near, partial(sides.wall, x=x, near=near, far=far))
    else:
        yield Thing(near, partial(sides.fence, x=x, near=near, far=far, behind="facade" if built else "leaf"))


def _traffic(rng: np.random.Generator, street: Street, town: Town) -> Iterator[Thing]:
    large = [body for body in (vehicles.TRUCK, vehicles.BUS) if rng.random() < town.large]
    if rng.random() < town.ahead:
        yield from _column(rng, town, 0.0, 0.0, rng.uniform(9, 18), (12, 30), large)
    oncoming = [street.middle - town.lane / 2, *(lane - town.lane / 2 for lane in street.lanes)]
    for i, x in enumerate(oncoming):
        if i == 0 and street.rails:
            heading = math.pi if rng.random() < 0.5 else 0.0
            yield from _column(rng, town, x, heading, rng.uniform(9, 20), (60, 90), [vehicles.TRAM], only=True)
        else:
            yield from _column(rng, town, x, math.pi, rng.uniform(8, 22), (8, 28), large)
    if street.road[1] > town.lane / 2 + 1:
        yield from _column(rng, town, street.road[1] - 1.1, 0.0, rng.uniform(6, 12), (0.8, 7), [])
    if street.road[0] < oncoming[-1] - town.lane / 2 - 1:
        yield from _column(rng, town, street.road[0] + 1.1, math.pi, rng.uniform(6, 12), (0.8, 7), [])
    if street.crossing is not None and rng.random() < 0.6:
        z, x = sum(street.crossing) / 2, rng.uniform(-8, 8)
        body = large.pop() if large and rng.random() < 0.5 else vehicles.SALOON
        yield _vehicle(body, vehicles.Pose(x, z, rng.choice([-1, 1]) * math.pi / 2))


def _column(
    rng: np.random.Generator,
    town: Town,
    x: float,
    heading: float,
    start: float,
    gaps: tuple[float, float],
    large: list[vehicles.Body],
    only: bool = False,
) -> Iterator[Thing]:
    z = start
    while z < 90:
        if large and (only or rng.random() < 0.6):
            body = large[0] if only else large.pop()
        else:
            body = vehicles.VAN if rng.random() < town.vans else vehicles.SALOON
        turn = heading + rng.uniform(-0.05, 0.05)
        yield _vehicle(body, vehicles.Pose(x + rng.uniform(-0.2, 0.2), z + body.length / 2, turn))
        z += body.length + rng.uniform(*gaps)


def _vehicle(body: vehicles.Body, pose: vehicles.Pose) -> Thing:
    sin, cos = abs(math.sin(pose.heading)), abs(math.cos(pose.heading))
    reach = (cos * body.length + sin * body.width) / 2
    # A long vehicle hides what stands beside it beyond its near end, so it counts as being there.
    z = pose.z - reach + min(reach, vehicles.SALOON.length / 2)
    return Thing(z, partial(vehicles.vehicle, body=body, pose=pose), pose.footprint(body))


def _furniture(rng: np.random.Generator, street: Street, town: Town) -> Iterator[Thing]:
    for edge, outward in zip(street.road, (-1, 1), strict=True):
        x = edge + 0.7 * outward
        z = rng.uniform(6, 14)
        while z < 80:
            if street.crossing is None or not street.crossing[0] < z < street.crossing[1]:
                yield _fixture(rng, town, x, z)
            z += rng.uniform(*town.every)
        if street.crossing is not None:
            z = street.crossing[0] - 0.7
            yield Thing(z, partial(furniture.traffic_light, x=x, z=z), _spot(x, z, 0.3))
        elif rng.random() < 0.4:
            z = rng.uniform(8, 22)
            yield Thing(z, partial(furniture.traffic_light, x=x, z=z), _spot(x, z, 0.3))


def _fixture(rng: np.random.Generator, town: Town, x: float, z: float) -> Thing:
    kind = rng.choice(("lamp", "pole", "sign", "tree", "bin"), p=town.fixture)
    if kind == "tree":
        high = rng.uniform(5, 8)
        return Thing(z, partial(furniture.tree, x=x, z=z, high=high), _spot(x, z, 0.3 * high))
    if kind == "pole":
        return Thing(z, partial(furniture.pole, x=x, z=z, high=rng.uniform(2.5, 7)), _spot(x, z, 0.3))
    paint = {"lamp": furniture.lamp, "sign": furniture.traffic_sign, "bin": furniture.bin_}[str(kind)]
    return Thing(z, partial(paint, x=x, z=z), _spot(x, z, 0.4))


def _people(rng: np.random.Generator, street: Street, town: Town) -> Iterator[Thing]:
    left, right = street.road
    walks = ((street.strip[0] + 0.3, left - 0.9), (right + 0.9, street.strip[1] - 0.3))
    for _ in range(int(rng.integers(*town.people))):
        on_road = rng.random() < town.on_road
        x = rng.uniform(left, right) if on_road else rng.uniform(*walks[int(rng.integers(2))])
        z = 6 + 26 * rng.random() ** 1.4
        yield Thing(z, partial(people.person, x=x, z=z), _spot(x, z, 0.4))
    for kind, (ridden, parked) in town.two_wheelers.items():
        if rng.random() < ridden:
            yield _two_wheeler(rng, rng.choice([right - 2.8, left + 2.8, rng.uniform(left, right)]), kind, True)
        if rng.random() < parked:
            x = rng.uniform(*walks[int(rng.integers(2))])
            for i in range(int(rng.integers(1, 4))):
                yield _two_wheeler(rng, x + 0.6 * i, kind, False)


def _two_wheeler(rng: np.random.Generator, x: float, kind: str, ridden: bool) -> Thing:
    z = 6 + 16 * rng.random()
    squeeze = rng.choice([-1, 1]) * rng.uniform(0.35, 1.0)
    paint = partial(people.two_wheeler, x=x, z=z, kind=kind, squeeze=squeeze, ridden=ridden)
    return Thing(z, paint, _spot(x, z, 0.7))


def _spot(x: float, z: float, radius: float) -> list[Point3]:
    turns = [math.pi * i / 4 for i in range(8)]
    return [(x + radius * math.cos(t), 0.0, z + radius * math.sin(t)) for t in turns]
