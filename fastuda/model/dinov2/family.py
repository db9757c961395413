"""DINOv2 as a family of networks: built from its recipe table, filled with published encoders."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from fastuda.model.dinov2.importer import KEYS, is_dinov2, translated
from fastuda.model.dinov2.network import DinoV2
from fastuda.model.dinov2.table import Table
from fastuda.model.transformer.family import TransformerFamily, Translated
from fastuda.recipe.model import Model


class DinoV2Family(TransformerFamily[Table]):
    """Takes fastuda's own files and DINOv2's encoders, from the hub or from Facebook Research."""

    table: ClassVar[type[Model]] = Table
    told_by_shapes = ("variant", "registers")
    keys_of_others = KEYS

    def build(self, settings: Table, num_classes: int) -> DinoV2:
        return DinoV2(settings, num_classes)

    def recognises(self, keys: Collection[str]) -> bool:
        return is_dinov2(keys)

    def translated(self, content: Mapping[object, object], settings: Table | None) -> Translated | None:
        return translated(content)

    def repository(self, settings: Table) -> str | None:
        if settings.weights != "lvd142m":
            return None
        return f"facebook/dinov2-{'with-registers-' if settings.registers else ''}{settings.variant}"


FAMILY = DinoV2Family()
