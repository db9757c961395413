"""Recipes of two scales with images as small as they take: twice as wide as high, details of half the height."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from steps import batches
from torch import Tensor
from transformers_small import small

from fastuda.data.loading.batch import DomainBatch
from fastuda.model.build import build_network
from fastuda.model.transformer.network import TransformerSegmenter
from fastuda.model.transformer.two_scales import TwoScales
from fastuda.recipe import Recipe

SIDES = {"segformer": 64, "dinov2": 56, "dinov3": 64}
"""Of crops."""
NARROW = "model.head_channels=8"
STILL = ("model.stochastic_depth=0", "train.optimizer.kind=adamw")


def settings(kind: str) -> list[str]:
    side = SIDES[kind]
    wide = [f"{one}=[{2 * side}, {side}]" for one in ("views.source_size", "views.target_size", "eval.size")]
    return [*wide, f"views.crop_size=[{side}, {side}]", f"model.detail={side // 2}"]


def two_scales(kind: str = "segformer", *more: str) -> Recipe:
    return small(kind, *settings(kind), *more)


def network(kind: str = "segformer", *more: str) -> tuple[TransformerSegmenter, TwoScales]:
    """A network in fp64 whose heads have opinions."""
    torch.manual_seed(0)
    model = build_network(two_scales(kind, "model.stochastic_depth=0", *more)).double()
    assert isinstance(model, TransformerSegmenter)
    assert model.two_scales is not None
    for name, value in model.named_parameters():
        if name.endswith("classify.weight"):
            torch.nn.init.normal_(value)
    return model, model.two_scales


def images(kind: str = "segformer", number: int = 2) -> Tensor:
    side = SIDES[kind]
    return torch.randn(number, 3, side, 2 * side, generator=torch.Generator().manual_seed(1)).double()


def whole_positions(monkeypatch: pytest.MonkeyPatch, kind: str = "segformer") -> tuple[DomainBatch, DomainBatch]:
    """Batches of `steps` of sizes that fit."""
    side = SIDES[kind]
    monkeypatch.setattr("steps.CROP", (side, side))
    monkeypatch.setattr("steps.VIEW", (side, 2 * side))
    return batches(two_scales(kind))


def without_draws(monkeypatch: pytest.MonkeyPatch, row: int = 8, column: int = 24) -> None:
    """Heads drop nothing, and every detail lies at that place."""
    monkeypatch.setattr("fastuda.model.transformer.heads.mlp._DROPOUT", 0.0)
    monkeypatch.setattr("fastuda.model.transformer.heads.context._DROPOUT", 0.0)

    def there(_: Any, pixels: Tensor) -> Tensor:
        zeros = torch.zeros((), dtype=torch.int64, device=pixels.device)
        return torch.stack([zeros + row, zeros + column])

    monkeypatch.setattr(TwoScales, "drawn_place", there)
