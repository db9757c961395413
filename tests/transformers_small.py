"""Recipes of the transformers with images as small as they take."""

from __future__ import annotations

import torch
from tiny import RUN

from fastuda.model.build import build_network
from fastuda.model.transformer.network import TransformerSegmenter
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe

VARIANTS = {"segformer": "mit-b0", "dinov2": "small", "dinov3": "small"}
SIDES = {"segformer": 32, "dinov2": 28, "dinov3": 32}
KINDS = list(VARIANTS)


def settings(kind: str) -> list[str]:
    """The smallest network of a kind, from a random start, and sizes that fit it."""
    side = SIDES[kind]
    sizes = [f"views.{one}_size=[{2 * side}, {side}]" for one in ("source", "target")]
    network = [f"model.kind={kind}", f"model.variant={VARIANTS[kind]}", "model.weights=random"]
    return [*network, *sizes, f"views.crop_size=[{side}, {side}]", f"eval.size=[{2 * side}, {side}]"]


def run_settings(kind: str) -> list[str]:
    """A whole run of the demo likewise, but for its iterations."""
    return [*(one for one in RUN if not one.startswith("model.")), *settings(kind)]


def small(kind: str, *more: str) -> Recipe:
    return load_recipe("gta2cs", [*settings(kind), *more])


def network(kind: str, *more: str) -> TransformerSegmenter:
    torch.manual_seed(0)
    model = build_network(small(kind, *more))
    assert isinstance(model, TransformerSegmenter)
    return model


def images(kind: str, number: int = 2) -> torch.Tensor:
    """Twice as wide as high."""
    side = SIDES[kind]
    return torch.randn(number, 3, side, 2 * side, generator=torch.Generator().manual_seed(1))
