"""DINOv3 as a family of networks: built from its recipe table, filled with published encoders once that is allowed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

from fastuda.errors import FastudaError
from fastuda.model.dinov3.importer import KEYS, is_dinov3, translated
from fastuda.model.dinov3.network import DinoV3
from fastuda.model.dinov3.table import Table
from fastuda.model.family import OnHub
from fastuda.model.hub import HUB
from fastuda.model.transformer.family import TransformerFamily, Translated
from fastuda.recipe.model import Model

_LETTERS = {"small": "s", "base": "b", "large": "l"}


class DinoV3Family(TransformerFamily[Table]):
    """Takes fastuda's own files, and DINOv3's encoders from those who accept their licence."""

    table: ClassVar[type[Model]] = Table
    keys_of_others = KEYS

    def build(self, settings: Table, num_classes: int) -> DinoV3:
        return DinoV3(settings, num_classes)

    def recognises(self, keys: Collection[str]) -> bool:
        return is_dinov3(keys)

    def translated(self, content: Mapping[object, object], settings: Table | None) -> Translated | None:
        if settings is not None:
            _require_licence(settings)
        return translated(content)

    def repository(self, settings: Table) -> str | None:
        if settings.weights != "lvd1689m":
            return None
        return f"facebook/dinov3-vit{_LETTERS[settings.variant]}16-pretrain-lvd1689m"

    def pretrained(self, settings: Table) -> OnHub | None:
        known = super().pretrained(settings)
        if known is not None or settings.weights.startswith(HUB):
            _require_licence(settings)
        return known


def _require_licence(settings: Table) -> None:
    if not settings.accept_licence:
        raise FastudaError(
            "DINOv3's published weights come under the DINOv3 licence "
            "(https://ai.meta.com/resources/models-and-libraries/dinov3-license), which binds whoever uses them or "
            "what is trained from them. If you accept it, say so: --set model.accept_licence=true; a random start "
            "needs no licence: --set model.weights=random"
        )


FAMILY = DinoV3Family()
