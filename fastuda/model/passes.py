"""A forward pass as every iteration makes it: normalised input, autocast, low-resolution logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from fastuda.model.grouped_batch_norm import grouped
from fastuda.model.segmenter import Outputs, Segmenter
from fastuda.recipe import Recipe
from fastuda.runtime.compiled import compiled
from fastuda.runtime.fast_path import FastPath
from fastuda_kernels.masked_mix import Normalisation, normalise

P = ParamSpec("P")
R = TypeVar("R")

_RGB_IMAGENET = Normalisation(
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    scale=(1 / (0.229 * 255), 1 / (0.224 * 255), 1 / (0.225 * 255)),
    bgr=False,
)
_BGR_CAFFE = Normalisation(mean=(104.00698793, 116.66876762, 122.67891434), scale=(1.0, 1.0, 1.0), bgr=True)
_RGB_TF = Normalisation(mean=(127.0, 127.0, 127.0), scale=(1 / 128, 1 / 128, 1 / 128), bgr=False)
_NORMALISATIONS = {"rgb-imagenet": _RGB_IMAGENET, "bgr-caffe": _BGR_CAFFE, "rgb-tf": _RGB_TF}


@dataclass(frozen=True)
class Passes:
    """How images go through the network: input convention (protocol row 20), precision, together or one by one."""

    normalisation: Normalisation
    amp: torch.dtype | None
    """Autocast type, None for fp32."""
    grouped: bool = False
    """Whether several mixed images go through the network in one pass, a BatchNorm group each."""
    compiled: bool = False
    """Whether the network and the losses are compiled."""
    channels_last: bool = True
    """Whether images enter the network as NHWC, which its activations then are."""

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device) -> Passes:
        """As the recipe's switches resolve on `device`; not compiled, which pays in training alone."""
        fast = FastPath.of(recipe.runtime, device)
        convention = _NORMALISATIONS[recipe.model.input]
        return cls(convention, fast.amp, grouped=fast.grouped, channels_last=fast.channels_last)

    @property
    def precision(self) -> str:
        """The autocast type by torch's name, `float32` without one."""
        return str(self.amp or torch.float32).removeprefix("torch.")

    def optimised(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function`, compiled if these passes are."""
        return compiled(function) if self.compiled else function

    def raw(self, model: Segmenter, images: Tensor, *, features: bool = False) -> Outputs:
        """The answer to uint8 RGB [B, H, W, 3], with the classifier's features if asked for."""
        return self.normalised(model, normalise(images, self.normalisation), features=features)

    def normalised(self, model: Segmenter, images: Tensor, *, features: bool = False) -> Outputs:
        """The answer to normalised [B, 3, H, W]."""
        return self._called(_forward_with_features if features else _forward, model, images)

    @torch.no_grad()
    def encoded(self, model: Segmenter, images: Tensor) -> Tensor:
        """A frozen network's features of normalised [B, 3, H, W], without gradients (`Segmenter.encode`)."""
        return self._called(_encode, model, images)

    def _called(self, function: Callable[[Segmenter, Tensor], R], model: Segmenter, images: Tensor) -> R:
        images = images.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        with torch.autocast(images.device.type, self.amp, enabled=self.amp is not None):
            return self.optimised(function)(model, images)

    def each(self, model: Segmenter, images: Sequence[Tensor], *, features: bool = False) -> list[Outputs]:
        """The answers to several normalised [B, 3, H, W], in order; in one pass if `grouped`.

        Both ways BatchNorm sees each tensor as a batch of its own, so they differ in rounding alone; of a network of
        two scales in the place of the detail, too, which a shared pass draws once (`TwoScales`).
        """
        if not self.grouped or len(images) < 2 or not model.can_group:
            return [self.normalised(model, one, features=features) for one in images]
        together = torch.cat(list(images))
        with grouped(model, len(images)):
            outputs = self.normalised(model, together, features=features)
        return outputs.chunk(len(images))


def _forward(model: Segmenter, images: Tensor) -> Outputs:
    return _stamped(model, model(images))


def _forward_with_features(model: Segmenter, images: Tensor) -> Outputs:
    return _stamped(model, model(images, features=True))


def _encode(model: Segmenter, images: Tensor) -> Tensor:
    return model.encode(images)


def _stamped(model: Segmenter, outputs: Outputs) -> Outputs:
    """With how the network's logits lie over the image, whether its forward pass says so or not."""
    return outputs._replace(align_corners=model.align_corners and outputs.align_corners)


@contextmanager
def teaching(model: Segmenter) -> Iterator[None]:
    """While entered, the network draws nothing, as a teacher does not: all but BatchNorm is in eval mode.

    Whatever a network has of dropout or stochastic depth is off, then, however it is written; BatchNorm stays in the
    mode that it had.
    """
    others = [module for module in model.modules() if module.training and not isinstance(module, _BatchNorm)]
    for module in others:
        module.training = False
    try:
        yield
    finally:
        for module in others:
            module.training = True


def batch_norm_layers(model: Segmenter) -> list[_BatchNorm]:
    """The network's BatchNorm layers, of any dimension."""
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


def in_training(model: Segmenter, batch_norm: Literal["batch", "running"]) -> Segmenter:
    """The network in train mode, its BatchNorm on each batch's statistics or on the running ones, which then stay."""
    model.train()
    if batch_norm == "running":
        for layer in batch_norm_layers(model):
            layer.eval()
    return model


@contextmanager
def frozen_running_statistics(model: Segmenter) -> Iterator[None]:
    """While entered, passes in train mode leave BatchNorm's running statistics as they are (protocol row 4)."""
    layers = batch_norm_layers(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
