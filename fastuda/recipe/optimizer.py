"""The recipe's table of an optimiser and its schedule: SGD or AdamW."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fastuda.recipe.choice import Choice, by_kind
from fastuda.recipe.section import Iterations, NonNegative, Rate

Beta = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Choice):
    """What every optimiser has: rates a group of parameters, their schedule, decay, clipping."""

    usual: ClassVar[str] = "sgd"

    kind: str
    """Which optimiser: `sgd` or `adamw`."""
    lr_backbone: Rate
    """Learning rate of the pretrained layers."""
    lr_head: Rate
    """Learning rate of the classifiers."""
    weight_decay: NonNegative
    """Decay of every trained parameter that the network does not except."""
    schedule: Literal["poly", "cosine"] = "poly"
    """How rates fall: (1 − t) ** `poly_power`, or (1 + cos πt) / 2, with t the share of the iterations that is done."""
    poly_power: NonNegative
    """poly: lr · (1 − iteration / iterations) ** power."""
    ramp_up: Iterations
    """Iterations over which the learning rate first rises linearly; 0 in the paper."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the rate of each layer that lies further from the output; 1 leaves all layers the same."""
    clip_norm: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Greatest norm of all gradients together; longer ones are shortened to it. Without it none are."""

    @classmethod
    def of_kind(cls, kind: object) -> type[Optimizer]:
        kinds: dict[str, type[Optimizer]] = {"sgd": Sgd, "adamw": AdamW}
        return by_kind(kinds, kind)


class Sgd(Optimizer):
    """SGD and its schedule (protocol row 21)."""

    kind: Literal["sgd"] = "sgd"
    """Which optimiser: `sgd` or `adamw`, which has rates of its own."""
    lr_backbone: Rate = 7.5e-4
    """Learning rate of the pretrained layers, for an iteration's whole step. 7.5e-4 is the step of the published runs;
    the rate that the paper prints is 2.5e-4, which their optimiser took three times an iteration."""
    backbone_updates: Literal["one", "listed"] = "one"
    """Updates an iteration of a backbone parameter: one, or as many as the released optimiser's list names it (three,
    four in a block's shortcut, one for the stem), each at a third of `lr_backbone`, with one momentum and gradient."""
    lr_head: Rate = 2.5e-3
    """Learning rate of the classifiers."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: NonNegative = 5e-4
    """L2 penalty on every trained parameter."""
    poly_power: NonNegative = 0.9
    """poly: lr · (1 − iteration / iterations) ** power."""
    ramp_up: Iterations = 0
    """Iterations over which the learning rate first rises linearly; 0 in the paper."""


class AdamW(Optimizer):
    """AdamW with the rates that transformers are adapted at (MIC: 6e-5, heads ten times as much)."""

    kind: Literal["adamw"] = "adamw"
    """Which optimiser: `sgd` or `adamw`, which has rates of its own."""
    lr_backbone: Rate = 6e-5
    """Learning rate of the pretrained layers."""
    lr_head: Rate = 6e-4
    """Learning rate of the classifiers."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the running means of gradients and of their squares."""
    eps: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """Added to the root of the mean square, against division by zero."""
    weight_decay: NonNegative = 0.01
    """Share of a parameter that a step at rate 1 takes off it, apart from the gradient."""
    poly_power: NonNegative = 1.0
    """poly: lr · (1 − iteration / iterations) ** power."""
    ramp_up: Iterations = 1500
    """Iterations over which the learning rate first rises linearly."""
