"""How many positions the network's output has, by the formula that recipes are held to and by the network itself."""

from __future__ import annotations

import pytest
import torch

from fastuda.errors import UsageError
from fastuda.model.build import build_network
from fastuda.model.deeplab.positions import positions
from fastuda.model.deeplab.table import Table
from fastuda.recipe.file import load_recipe

TINY = ["model.kind=deeplab-v2", "model.depth=18", "model.width=0.015625", "model.aspp=[1]", "model.weights='random'"]


@pytest.mark.parametrize("padding", [0, 1])
def test_it_is_what_the_network_gives(padding: int) -> None:
    network = build_network(load_recipe("demo", [*TINY, f"model.pool_padding={padding}"])).eval()
    for side in (*range(1, 42), 63, 64, 65, 97, 128):
        image = torch.zeros(1, 3, 40, side)
        if positions((side, 40), padding) == 0:
            with pytest.raises(RuntimeError):
                network(image)
            continue
        with torch.no_grad():
            features = network.backbone(image)
        last = features[-1] if isinstance(features, list | tuple) else features
        assert last.shape[-1] * last.shape[-2] == positions((side, 40), padding), side


@pytest.mark.parametrize("padding", [0, 1])
def test_the_smallest_side_is_the_smallest(padding: int) -> None:
    for least in (1, 2, 5):
        side = Table(pool_padding=padding).smallest_side(least)
        assert positions((side, side), padding) >= least
        assert side == 1 or positions((side - 1, side - 1), padding) < least


@pytest.mark.parametrize("field", ["views.source_size", "views.target_size", "views.crop_size", "eval.size"])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_recipe_is_refused_just_below_the_side_that_it_is_told(field: str, padding: int) -> None:
    settings = ["model.kind=deeplab-v2", f"model.pool_padding={padding}", "train.batch_size=1"]
    side = Table(pool_padding=padding).smallest_side(1 if field == "eval.size" else 2)
    load_recipe("demo", [*settings, f"{field}=[{side}, {side}]"])
    if side > 1:
        with pytest.raises(UsageError, match=rf"{field}.*too small for the network"):
            load_recipe("demo", [*settings, f"{field}=[{side - 1}, {side - 1}]"])
