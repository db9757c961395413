"""What lines the street: facades with windows, walls, fences, hedges, and the far skyline."""

from __future__ import annotations

from fastuda.demo.canvas import Painter, shade
from fastuda.demo.furniture import bush, tree
from fastuda.demo.palettes import Colour

_PIECE = 8.0


def ribbon(
    painter: Painter, x: float, depths: tuple[float, float], heights: tuple[float, float], colour: Colour, label: str
) -> None:
    """A vertical strip along the street at lateral position `x`, in short pieces so that it follows bends."""
    near, far = depths
    low, high = heights
    count = max(1, round((far - near) / _PIECE))
    for i in reversed(range(count)):
        a, b = near + (far - near) * i / count, near + (far - near) * (i + 1) / count
        painter.face(((x, low, a), (x, low, b), (x, high, b), (x, high, a)), colour, label)


def building(painter: Painter, x: float, near: float, far: float, lit: bool) -> None:
    """A house whose front runs along the street at `x`, with the end wall that faces the camera."""
    rng = painter.rng
    floors = int(rng.integers(2, 7))
    high = 3.4 + 3.0 * floors
    colour = painter.colour("facade")
    out = x + (14 if x > 0 else -14)
    end = shade(colour, 0.86)
    painter.face(((x, 0, near), (out, 0, near), (out, high, near), (x, high, near)), end, "building")
    front = shade(colour, 1.0 if lit else 0.78)
    ribbon(painter, x, (near, far), (0, high), front, "building")
    ribbon(painter, x, (near, far), (high - 0.5, high), painter.colour("roof"), "building")
    ribbon(painter, x, (near, far), (0, 0.7), shade(front, 0.8), "building")
    ribbon(painter, x, (near, far), (3.2, 3.45), shade(front, 1.15), "building")
    if painter.other_shape:
        _gables(painter, x, near, far, high, end)
    _windows(painter, x, near, far, floors, lit)
    _end_windows(painter, x, near, floors)


def _gables(painter: Painter, x: float, near: float, far: float, high: float, end: Colour) -> None:
    """A steep roof with gables along the street, seen in front and at the end wall."""
    roof = painter.colour("roof")
    out = x + (14 if x > 0 else -14)
    middle, top = (x + out) / 2, high + painter.rng.uniform(3, 6)
    painter.face(((x, high, near), (x, high, far), (middle, top, far), (middle, top, near)), roof, "building")
    painter.face(((x, high, near), (middle, top, near), (out, high, near)), end, "building")
    count = max(1, round((far - near) / 7))
    for i in reversed(range(count)):
        a, b = near + (far - near) * i / count, near + (far - near) * (i + 1) / count
        painter.face(((x, high, a), (x, high, b), (x, high + 2.4, (a + b) / 2)), shade(end, 1.1), "building")


def _windows(painter: Painter, x: float, near: float, far: float, floors: int, lit: bool) -> None:
    rng = painter.rng
    glass = shade(painter.colour("glass"), 1.0 if lit else 0.85)
    frame = shade(glass, 1.9)
    bay, wide, tall = rng.uniform(2.2, 3.4), rng.uniform(0.45, 0.7), rng.uniform(1.4, 1.9)
    shop = rng.random() < 0.4
    door = painter.colour("door")
    for i in reversed(range(int((far - near) / bay))):
        start = near + i * bay + bay * (1 - wide) / 2
        stop = start + bay * wide
        if start < 1.5 or painter.pixels(abs(x), start) - painter.pixels(abs(x), stop) < 1.5:
            continue
        for floor in range(1, floors + 1):
            low = 1.0 + 3.0 * floor
            _pane(painter, x, start, stop, low, low + tall, frame)
            _pane(painter, x, start + 0.12, stop - 0.12, low + 0.12, low + tall - 0.12, glass)
        if shop:
            _pane(painter, x, near + i * bay + 0.2, near + (i + 1) * bay - 0.2, 0.6, 2.8, glass)
        elif i % 3 == 1:
            _pane(painter, x, start, start + 1.1, 0.1, 2.4, door)
        else:
            _pane(painter, x, start, stop, 1.1, 2.6, glass)


def _end_windows(painter: Painter, x: float, near: float, floors: int) -> None:
    glass = painter.colour("glass")
    outward = 1 if x > 0 else -1
    for i in range(4):
        a, b = x + outward * (1.0 + 3.0 * i), x + outward * (2.4 + 3.0 * i)
        for floor in range(floors + 1):
            low = 1.1 + 3.0 * floor
            corners = ((a, low, near), (b, low, near), (b, low + 1.5, near), (a, low + 1.5, near))
            painter.face(corners, glass, "building")


def _pane(painter: Painter, x: float, near: float, far: float, low: float, high: float, colour: Colour) -> None:
    painter.face(((x, low, near), (x, low, far), (x, high, far), (x, high, near)), colour, "building")


def wall(painter: Painter, x: float, near: float, far: float) -> None:
    """A free-standing wall with courses and a cap."""
    high = painter.rng.uniform(1.8, 3.0)
    colour = painter.colour("wall")
    out = x + (0.5 if x > 0 else -0.5)
    painter.face(((x, 0, near), (out, 0, near), (out, high, near), (x, high, near)), shade(colour, 0.85), "wall")
    ribbon(painter, x, (near, far), (0, high), colour, "wall")
    for i in range(1, 5):
        y = high * i / 5
        ribbon(painter, x, (near, min(far, 40.0)), (y - 0.03, y + 0.03), shade(colour, 0.78), "wall")
    ribbon(painter, x, (near, far), (high - 0.2, high), shade(colour, 1.2), "wall")


def fence(painter: Painter, x: float, near: float, far: float, behind: str) -> None:
    """A picket fence; the label covers its gaps too, through which `behind` shows."""
    high = painter.rng.uniform(1.3, 1.9)
    colour = painter.colour("fence")
    ribbon(painter, x, (near, far), (0, high), shade(painter.colour(behind), 0.7), "fence")
    step = painter.rng.uniform(0.45, 0.7)
    for i in reversed(range(int((min(far, 60.0) - near) / step))):
        z = near + i * step
        if z > 1.5:
            painter.face(((x, 0, z), (x, 0, z + 0.22), (x, high, z + 0.22), (x, high, z)), colour, "fence")
    for low, top in ((0.25, 0.4), (high - 0.3, high - 0.15)):
        ribbon(painter, x, (near, far), (low, top), shade(colour, 0.9), "fence")


def hedge(painter: Painter, x: float, near: float, far: float) -> None:
    """Trees and bushes in a row, the farthest first."""
    rng = painter.rng
    z = far
    while z > max(near, 4.0):
        offset = rng.uniform(0, 3) * (1 if x > 0 else -1)
        if rng.random() < 0.6:
            tree(painter, x + offset, z, rng.uniform(5, 9))
        bush(painter, x + 0.5 * offset, z, rng.uniform(0.8, 1.6))
        z -= rng.uniform(1.5, 3.5)


def skyline(painter: Painter) -> None:
    """Far houses and trees along the whole horizon, so that no street ends in nothing."""
    rng, camera = painter.rng, painter.camera
    z = 160.0
    metre = camera.focal / z
    left = -camera.centre / metre - camera.bend * z * z
    x = left - 5
    while x < left + camera.width / metre + 5:
        if rng.random() < 0.45:
            wide, high = rng.uniform(8, 18), rng.uniform(6, 20)
            corners = ((x, 0, z), (x + wide, 0, z), (x + wide, high, z), (x, high, z))
            painter.face(corners, painter.colour("facade"), "building")
        else:
            wide = rng.uniform(6, 12)
            painter.disc((x + wide / 2, 2, z), wide * 0.6, painter.colour("leaf"), "vegetation")
        x += wide * 0.8
