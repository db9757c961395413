"""What separates the demo's two domains: things that look strange, and not the moments of whole images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fastuda.demo import look, palettes
from fastuda.demo.canvas import LABEL_ID
from fastuda.demo.domains import SOURCE, TARGET, Domain
from fastuda.demo.scene import draw_scene

_STUFF = ("road", "sidewalk", "building", "vegetation", "terrain", "sky")


def test_nothing_of_the_source_looks_strange() -> None:
    rng = np.random.default_rng(0)
    assert {look.SOURCE.strangeness(rng) for _ in range(50)} == {0.0}


def test_a_share_of_the_targets_things_looks_familiar_and_the_others_more_or_less_strange() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([look.TARGET.strangeness(rng) for _ in range(4000)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert (drawn < 0.25).mean() == pytest.approx(look.TARGET.familiar, abs=0.03)
    rest = drawn[drawn >= 0.25]
    assert np.histogram(rest, 3, (0.25, 1.0))[0].min() > 0.3 * len(rest), "every degree of strangeness occurs"


@pytest.mark.parametrize("material", ["asphalt", "leaf", "car"])
def test_a_colour_goes_from_the_palette_to_the_strange_one(material: str) -> None:
    rng = np.random.default_rng(0)
    assert look.TARGET.colour(material, 0.0, rng) in look.TARGET.palette[material]
    assert look.TARGET.colour(material, 1.0, rng) in palettes.STRANGE[material]
    assert look.SOURCE.colour(material, 0.0, rng) in look.SOURCE.palette[material]


def test_strange_materials_are_those_of_the_palette() -> None:
    assert palettes.STRANGE.keys() <= palettes.TARGET.keys() == palettes.SOURCE.keys()


def test_moments_of_the_images_do_not_undo_the_gap() -> None:
    """A classifier that knows the source's colours, each domain's channels made to have mean 0 and deviation 1."""
    own, other = _standardised(SOURCE), _standardised(TARGET)
    centres = np.array([own[0][own[1] == i].mean(axis=0) for i in range(len(_STUFF))])

    def accuracy(pixels: NDArray[np.float64], labels: NDArray[np.intp]) -> float:
        nearest = ((pixels[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        return float(np.mean([(nearest[labels == i] == i).mean() for i in range(len(_STUFF))]))

    assert accuracy(*own) > 0.55
    assert accuracy(*other) < 0.75 * accuracy(*own)


def _standardised(domain: Domain) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Pixels [N, 3] of some scenes, and which of the classes each is of [N]."""
    pixels, labels = [], []
    for i in range(24):
        image, label = draw_scene(np.random.default_rng(i), domain, (128, 64))
        pixels.append(image.reshape(-1, 3).astype(np.float64))
        labels.append(label.ravel())
    values, ids = np.concatenate(pixels), np.concatenate(labels)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    which = np.full(256, -1)
    which[[LABEL_ID[name] for name in _STUFF]] = range(len(_STUFF))
    kept = which[ids] >= 0
    return values[kept], which[ids][kept]
