"""An encoder of transformer blocks and a head on its feature maps.

Dimensions: B images, C classes, D features, H W pixels, H' W' positions.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from fastuda.model.grouped_batch_norm import GroupedBatchNorm2d
from fastuda.model.segmenter import Outputs, ParameterGroup, Segmenter
from fastuda.model.transformer.encoder import Encoder
from fastuda.model.transformer.heads.made import made_attention, made_head
from fastuda.model.transformer.lora import add_lora
from fastuda.model.transformer.settings import TransformerTable
from fastuda.model.transformer.two_scales import TwoScales, halved
from fastuda.runtime.fast_path import FastPath

_NEVER_DECAYS = re.compile(r"(cls_token|register_tokens|position_embeddings)$")


class TransformerSegmenter(Segmenter):
    """The segmentation network; each logit stands for the middle of its share of the pixels."""

    align_corners = False

    def __init__(self, settings: TransformerTable, encoder: Encoder, num_classes: int, output_stride: int) -> None:
        super().__init__(num_classes, settings)
        self.output_stride = output_stride
        self.backbone = encoder
        if settings.lora:
            add_lora(encoder, settings.lora, settings.lora_alpha)
        self.reads_last = settings.head == "linear" and encoder.one_stride
        self.head = made_head(settings.head, encoder.channels, num_classes, settings.head_channels)
        self.two_scales = None
        if settings.detail:
            attention = made_attention(settings.head, encoder.channels, num_classes, settings.head_channels)
            self.two_scales = TwoScales(attention, settings.detail, settings.detail_weight, output_stride)

    def forward(self, images: Tensor, *, features: bool = False) -> Outputs:
        """Low-resolution logits of float [B, 3, H, W] normalised images; `features` are the encoder's last map, of the
        context where there are two scales."""
        if self.two_scales is not None:
            answer: Outputs = self.two_scales(images, self._maps, self.head, features=features)
            return answer
        maps = self._maps(images)
        return Outputs(self.head(maps), None, maps[-1] if features else None, align_corners=False)

    def encode(self, images: Tensor) -> Tensor:
        context = images if self.two_scales is None else halved(images)
        last: Tensor = self.backbone(context, only_last=True)[-1]
        return last

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.backbone(images, only_last=self.reads_last)
        return maps

    def follow(self, fast: FastPath) -> None:
        """The head's BatchNorm and the ReLU behind it in one call, or one by one."""
        for module in self.modules():
            if isinstance(module, GroupedBatchNorm2d):
                module.fused = fast.fused_batch_norm

    def parameter_groups(self) -> list[ParameterGroup]:
        """The encoder block by block, and the heads, which learn faster; norms, biases, tokens and position
        embeddings go without weight decay."""
        placed: dict[tuple[str, int, bool], list[nn.Parameter]] = {}
        for name, parameter in self.backbone.named_parameters():
            if parameter.requires_grad:
                place = ("backbone", self.backbone.depth_of(name), _decays(name, parameter))
                placed.setdefault(place, []).append(parameter)
        heads = [self.head] if self.two_scales is None else [self.head, self.two_scales]
        for name, parameter in (one for head in heads for one in head.named_parameters()):
            placed.setdefault(("head", self.backbone.num_blocks + 1, _decays(name, parameter)), []).append(parameter)
        return [
            ParameterGroup(name, parameters, depth=depth, decays=decays)
            for (name, depth, decays), parameters in sorted(placed.items(), key=lambda one: one[0][1])
        ]


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and _NEVER_DECAYS.search(name) is None
