"""What every segmentation network is to the rest of fastuda.

Dimensions: B images, C classes, D features, H W pixels, H' W' positions of the low-resolution output.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastuda.errors import UsageError
from fastuda.model.detail import Detail
from fastuda.model.grouped_batch_norm import GroupedBatchNorm2d
from fastuda.recipe.model import Model
from fastuda.runtime.fast_path import FastPath


class Outputs(NamedTuple):
    """What a network answers, at low resolution."""

    logits: Tensor
    """float [B, C, H', W']: class scores before the softmax."""
    auxiliary: Tensor | None = None
    """float [B, C, H', W'], of a second classifier on earlier features; None without one."""
    features: Tensor | None = None
    """float [B, D, H', W']: the encoder's deepest features, which the classifier reads; None unless asked for."""
    align_corners: bool = True
    """How the logits lie over the image, see `Segmenter.align_corners`; `Passes` sets what the network says there."""
    reference: Tensor | None = None
    """float [B, D, H', W']: a frozen network's features of the same images, where a term compares them."""
    detail: Detail | None = None
    """What a network of two scales says of a part of the images alone, whose loss it learns, too; None without one."""

    def main_head(self, samples: slice = slice(None)) -> Outputs:
        """The main head of these samples, and its detail; nothing else."""
        detail = None if self.detail is None else self.detail.part(samples)
        return Outputs(self.logits[samples], align_corners=self.align_corners, detail=detail)

    def auxiliary_head(self, samples: slice = slice(None)) -> Outputs:
        """The auxiliary head of these samples as if it were the main one; there must be one."""
        assert self.auxiliary is not None
        return Outputs(self.auxiliary[samples], align_corners=self.align_corners)

    def chunk(self, number: int) -> list[Outputs]:
        """Those of `number` equal batches that shared a pass, in order."""
        auxiliary, features = (
            [None] * number if part is None else part.chunk(number) for part in (self.auxiliary, self.features)
        )
        details: Sequence[Detail | None] = [None] * number if self.detail is None else self.detail.chunk(number)
        parts = zip(self.logits.chunk(number), auxiliary, features, details, strict=True)
        return [
            Outputs(logits, second, read, align_corners=self.align_corners, detail=detail)
            for logits, second, read, detail in parts
        ]


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters that one learning rate moves."""

    name: str
    """`backbone` goes by the recipe's `lr_backbone`, any other by `lr_head`."""
    parameters: Sequence[nn.Parameter]
    lr_multiplier: float = 1.0
    """On that rate."""
    depth: int = 0
    """How far from the input its layer lies, for layer decay."""
    decays: bool = True
    """Whether weight decay holds for it; norms and biases of transformers go without."""


class Segmenter(nn.Module, ABC):
    """A network from normalised images to class scores at low resolution."""

    output_stride: int
    """Pixels from one position of the output to the next."""
    align_corners: ClassVar[bool] = True
    """How its logits lie over the image, as `torch.nn.functional.interpolate` has it: their corners at the image's
    (protocol row 17), or each over the middle of its share of the pixels. Losses, pseudo-labels and evaluation follow.
    """

    def __init__(self, num_classes: int, settings: Model | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.settings = settings
        """The recipe's table that it was built from, whose `input` says what images are normalised to; None for one
        that no recipe asked for."""

    @abstractmethod
    def forward(self, images: Tensor, *, features: bool = False) -> Outputs:
        """The answer to float [B, 3, H, W] normalised images, with the classifier's `features` if asked for.

        How it lies over the image the class says (`align_corners`); `Outputs` need not repeat it.
        """

    def encode(self, images: Tensor) -> Tensor:
        """The encoder's deepest features, float [B, D, H', W']: what `forward` gives of them if asked for `features`.

        No head need be computed for them.
        """
        features = self(images, features=True).features
        assert isinstance(features, Tensor)
        return features

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Every trained parameter, once, from the input to the output."""

    def describe(self) -> dict[str, object]:
        """What a file's header says of the network beside its tensors, as JSON can hold it.

        Here the whole table that it was built from and the number of classes, as `Family.interpret` reads them.
        """
        assert self.settings is not None, "a network that is saved says what it was built from"
        about = self.settings.model_dump(mode="json", exclude={"weights", "sha256"})
        return {**about, "num_classes": self.num_classes}

    def follow(self, fast: FastPath) -> None:
        """Compute as the path says, where there is more than one way; the numbers are the same but for rounding."""

    def cast_modules(self) -> list[nn.Conv2d | nn.Linear]:
        """Modules whose `weight` a pass may read in autocast's type, so that a copy in that type saves the cast."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d | nn.Linear)]

    @cached_property
    def can_group(self) -> bool:
        """Whether several batches may share a pass: every BatchNorm that it has can keep their statistics apart."""
        norms = (module for module in self.modules() if isinstance(module, _BatchNorm))
        return all(isinstance(norm, GroupedBatchNorm2d) for norm in norms)

    def times_listed(self) -> Counter[nn.Parameter]:
        """How often the released optimiser's list names each parameter of the backbone (protocol row 21).

        Raises UsageError for a network that the release does not have.
        """
        raise UsageError('optimizer.backbone_updates = "listed" is known of deeplab-v2 alone')

    @property
    def num_branches(self) -> int:
        """Convolutions of a classifier that read the same features, as a count of its memory traffic needs it."""
        return 1


def described(model: Segmenter) -> dict[str, str]:
    """Metadata for `weights.save_weights` from which `weights.read_weights` knows the network again."""
    return {"model": json.dumps(model.describe())}
