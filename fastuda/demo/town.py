"""How each domain's streets are laid out, and what stands and moves in them."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Town:
    """One domain's habits: probabilities, and ranges that are drawn from uniformly, lengths in metres.

    `lanes` is the range of oncoming lanes, its end excluded, as is that of `people`. `stretch` are the odds of what
    lines a street (building, wall, fence, hedge), `fixture` those of what stands at its kerb (lamp, pole, sign, tree,
    bin). `two_wheelers` are, by kind, how probably one is ridden past and how probably some are parked.
    """

    lanes: tuple[int, int]
    lane: float
    parking: float
    tram: float
    walk: Range
    green: float
    crossing: float
    stretch: tuple[float, float, float, float]
    fixture: tuple[float, float, float, float, float]
    every: Range
    """From one fixture to the next."""
    ahead: float
    """That vehicles drive ahead."""
    large: float
    """That there is a truck, and that there is a bus."""
    vans: float
    """Share of the cars."""
    people: tuple[int, int]
    on_road: float
    """Share of the people."""
    two_wheelers: dict[str, Range]


SOURCE = Town(
    lanes=(1, 3),
    lane=3.3,
    parking=0.65,
    tram=0.3,
    walk=(2.0, 4.0),
    green=0.5,
    crossing=0.5,
    stretch=(0.52, 0.16, 0.18, 0.14),
    fixture=(0.26, 0.2, 0.3, 0.18, 0.06),
    every=(5, 14),
    ahead=0.75,
    large=0.4,
    vans=0.35,
    people=(4, 10),
    on_road=0.15,
    two_wheelers={"bicycle": (0.7, 0.5), "motorcycle": (0.6, 0.4)},
)

TARGET = Town(
    lanes=(1, 3),
    lane=2.9,
    parking=0.85,
    tram=0.24,
    walk=(2.6, 5.5),
    green=0.35,
    crossing=0.6,
    stretch=(0.5, 0.2, 0.14, 0.16),
    fixture=(0.2, 0.26, 0.2, 0.3, 0.04),
    every=(4, 9),
    ahead=0.55,
    large=0.3,
    vans=0.6,
    people=(6, 15),
    on_road=0.25,
    two_wheelers={"bicycle": (0.9, 0.8), "motorcycle": (0.5, 0.5)},
)
