"""From a recipe's word to a head."""

from __future__ import annotations

from collections.abc import Sequence

from fastuda.model.transformer.heads.context import ContextHead
from fastuda.model.transformer.heads.head import Head
from fastuda.model.transformer.heads.kind import HeadKind
from fastuda.model.transformer.heads.linear import LinearHead
from fastuda.model.transformer.heads.mlp import MLPHead


def made_head(kind: HeadKind, channels: Sequence[int], num_classes: int, width: int) -> Head:
    """The head over maps of `channels` features, the finest first; `width` is that of all but the linear one."""
    if kind == "mlp":
        return MLPHead(channels, num_classes, width)
    return ContextHead(channels, num_classes, width) if kind == "daformer" else LinearHead(channels, num_classes)


def made_attention(kind: HeadKind, channels: Sequence[int], num_classes: int, width: int) -> Head:
    """The head whose scores are HRDA's attention between scales, beside a head of that kind.

    As its authors have it that is one of the same kind, but for `daformer`, whose dilated convolutions a 1×1 one
    replaces: it is `mlp` then.
    """
    return made_head("linear" if kind == "linear" else "mlp", channels, num_classes, width)
