"""SegFormer as a family of networks: built from its recipe table, filled with weights of its whole lineage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from fastuda.model.segformer.importer import KEYS, is_mix_transformer, translated
from fastuda.model.segformer.network import SegFormer
from fastuda.model.segformer.table import Table
from fastuda.model.transformer.family import TransformerFamily, Translated
from fastuda.recipe.model import Model


class SegFormerFamily(TransformerFamily[Table]):
    """Takes NVIDIA's Mix Transformers, and SegFormers and checkpoints of DAFormer, HRDA and MIC with their heads."""

    table: ClassVar[type[Model]] = Table
    keys_of_others = KEYS

    def build(self, settings: Table, num_classes: int) -> SegFormer:
        return SegFormer(settings, num_classes)

    def recognises(self, keys: Collection[str]) -> bool:
        return is_mix_transformer(keys)

    def translated(self, content: Mapping[object, object], settings: Table | None) -> Translated | None:
        return translated(content)

    def repository(self, settings: Table) -> str | None:
        return f"nvidia/{settings.variant}" if settings.weights == "imagenet" else None


FAMILY = SegFormerFamily()
