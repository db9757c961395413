"""Checkpoints of Mix Transformers made on the spot, under the keys of those who publish them, and what they compute.

The forward pass is plain functions of the checkpoint's own keys, written from NVlabs' and DAFormer's papers and
knowing nothing of fastuda's network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

WIDTHS = (32, 64, 160, 256)
DEPTHS = (2, 2, 2, 2)
HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
EMBEDDED = 256

State = dict[str, Tensor]


def mit_b0() -> State:
    """NVlabs' mit_b0.pth: the encoder and ImageNet's classifier."""
    made = Made()
    below = 3
    for i, (width, reduction) in enumerate(zip(WIDTHS, REDUCTIONS, strict=True)):
        kernel = 7 if i == 0 else 3
        made.layer(f"patch_embed{i + 1}.proj", width, below, kernel, kernel)
        made.norm(f"patch_embed{i + 1}.norm", width)
        for j in range(DEPTHS[i]):
            block = f"block{i + 1}.{j}"
            made.norm(f"{block}.norm1", width)
            made.layer(f"{block}.attn.q", width, width)
            made.layer(f"{block}.attn.kv", 2 * width, width)
            made.layer(f"{block}.attn.proj", width, width)
            if reduction > 1:
                made.layer(f"{block}.attn.sr", width, width, reduction, reduction)
                made.norm(f"{block}.attn.norm", width)
            made.norm(f"{block}.norm2", width)
            made.layer(f"{block}.mlp.fc1", 4 * width, width)
            made.layer(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3, 3)
            made.layer(f"{block}.mlp.fc2", width, 4 * width)
        made.norm(f"norm{i + 1}", width)
        below = width
    made.layer("head", 1000, WIDTHS[-1])
    return made.state


def daformer_head(num_classes: int, width: int = EMBEDDED) -> State:
    """DAFormer's head under mmsegmentation's keys, without their prefix."""
    made = Made(1)
    for i, below in enumerate(WIDTHS):
        made.layer(f"embed_layers.{i}.proj", width, below)
    made.convolution("fuse_layer.aspp_modules.0", width, 4 * width, 1)
    for i in (1, 2, 3):
        made.convolution(f"fuse_layer.aspp_modules.{i}.depthwise_conv", 4 * width, 1, 3)
        made.convolution(f"fuse_layer.aspp_modules.{i}.pointwise_conv", width, 4 * width, 1)
    made.convolution("fuse_layer.bottleneck", width, 4 * width, 3)
    made.layer("conv_seg", num_classes, width, 1, 1)
    return made.state


def scale_attention(num_classes: int, width: int = EMBEDDED) -> State:
    """HRDA's attention between scales likewise: DAFormer's head with a 1×1 convolution that fuses."""
    made = Made(3)
    for i, below in enumerate(WIDTHS):
        made.layer(f"embed_layers.{i}.proj", width, below)
    made.convolution("fuse_layer", width, 4 * width, 1)
    made.layer("conv_seg", num_classes, width, 1, 1)
    return made.state


def segformer_head(num_classes: int, width: int = EMBEDDED) -> State:
    """SegFormer's head under mmsegmentation's keys, with the classifier that it has and does not use."""
    made = Made(2)
    for i, below in enumerate(WIDTHS):
        made.layer(f"linear_c{i + 1}.proj", width, below)
    made.convolution("linear_fuse", width, 4 * width, 1)
    made.layer("linear_pred", num_classes, width, 1, 1)
    made.layer("conv_seg", num_classes, 128, 1, 1)
    return made.state


class Made:
    """A state dict that grows by layers of random weights."""

    def __init__(self, seed: int = 0) -> None:
        self.state: State = {}
        self.generator = torch.Generator().manual_seed(seed)

    def random(self, *shape: int, scale: float = 0.1) -> Tensor:
        return torch.randn(shape, generator=self.generator) * scale

    def layer(self, name: str, *shape: int) -> None:
        inputs = torch.Size(shape[1:]).numel()
        self.state[f"{name}.weight"] = self.random(*shape, scale=inputs**-0.5)
        self.state[f"{name}.bias"] = self.random(shape[0])

    def norm(self, name: str, width: int) -> None:
        self.state[f"{name}.weight"], self.state[f"{name}.bias"] = 1 + self.random(width), self.random(width)

    def convolution(self, name: str, out: int, below: int, kernel: int) -> None:
        self.layer(f"{name}.conv", out, below, kernel, kernel)
        del self.state[f"{name}.conv.bias"]
        self.norm(f"{name}.bn", out)
        self.state[f"{name}.bn.running_mean"] = self.random(out)
        self.state[f"{name}.bn.running_var"] = self.random(out).exp()
        self.state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)


def maps_of(state: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Feature maps of images float [B, 3, H, W] by an encoder under NVlabs' keys, the finest first."""
    maps = []
    for i, (heads, reduction) in enumerate(zip(HEADS, REDUCTIONS, strict=True)):
        weight, bias = _of(state, f"patch_embed{i + 1}.proj")
        x = F.conv2d(x, weight, bias, stride=4 if i == 0 else 2, padding=weight.shape[2] // 2)
        size = x.shape[2:]
        x = _norm(state, f"patch_embed{i + 1}.norm", x.flatten(2).mT, 1e-5)
        for j in range(DEPTHS[i]):
            block = f"block{i + 1}.{j}"
            y = _norm(state, f"{block}.norm1", x, 1e-6)
            query = F.linear(y, *_of(state, f"{block}.attn.q")).unflatten(2, (heads, -1)).transpose(1, 2)
            if reduction > 1:
                square = y.mT.unflatten(2, size)
                y = F.conv2d(square, *_of(state, f"{block}.attn.sr"), stride=reduction).flatten(2).mT
                y = _norm(state, f"{block}.attn.norm", y, 1e-5)
            both = F.linear(y, *_of(state, f"{block}.attn.kv")).unflatten(2, (2, heads, -1))
            key, value = both.permute(2, 0, 3, 1, 4)
            weights = (query @ key.mT * query.shape[3] ** -0.5).softmax(-1)
            x = x + F.linear((weights @ value).transpose(1, 2).flatten(2), *_of(state, f"{block}.attn.proj"))
            y = F.linear(_norm(state, f"{block}.norm2", x, 1e-6), *_of(state, f"{block}.mlp.fc1"))
            square = y.mT.unflatten(2, size)
            square = F.conv2d(square, *_of(state, f"{block}.mlp.dwconv.dwconv"), padding=1, groups=y.shape[2])
            x = x + F.linear(F.gelu(square.flatten(2).mT), *_of(state, f"{block}.mlp.fc2"))
        x = _norm(state, f"norm{i + 1}", x, 1e-6).mT.unflatten(2, size)
        maps.append(x)
    return maps


def daformer_logits(state: Mapping[str, Tensor], maps: list[Tensor]) -> Tensor:
    """Scores by DAFormer's head, in eval mode."""
    x = torch.cat([_embedded(state, f"embed_layers.{i}.proj", one, maps) for i, one in enumerate(maps)], 1)
    found = [_convolved(state, "fuse_layer.aspp_modules.0", x)]
    for i, dilation in ((1, 6), (2, 12), (3, 18)):
        module = f"fuse_layer.aspp_modules.{i}"
        y = _convolved(state, f"{module}.depthwise_conv", x, dilation, groups=x.shape[1])
        found.append(_convolved(state, f"{module}.pointwise_conv", y))
    return F.conv2d(_convolved(state, "fuse_layer.bottleneck", torch.cat(found, 1)), *_of(state, "conv_seg"))


def two_scale_logits(mit: State, head: State, attention: State, images: Tensor, side: int) -> Tensor:
    """Scores by HRDA in eval mode: details of `side` pixels slide over the image by half of it."""
    context = maps_of(mit, F.avg_pool2d(images, 2))
    embedded = [_embedded(attention, f"embed_layers.{i}.proj", one, context) for i, one in enumerate(context)]
    share = F.conv2d(_convolved(attention, "fuse_layer", torch.cat(embedded, 1)), *_of(attention, "conv_seg")).sigmoid()
    height, width = images.shape[2:]
    details, times = (images.new_zeros(len(images), share.shape[1], height // 4, width // 4) for _ in range(2))
    for i in range(1 + -(-(height - side) // (side // 2))):
        for j in range(1 + -(-(width - side) // (side // 2))):
            top, left = min(i * side // 2, height - side), min(j * side // 2, width - side)
            answer = daformer_logits(head, maps_of(mit, images[..., top : top + side, left : left + side]))
            there = (..., slice(top // 4, (top + side) // 4), slice(left // 4, (left + side) // 4))
            details[there] += answer
            times[there] += 1
    return _doubled((1 - share) * daformer_logits(head, context)) + _doubled(share) * details / times


def _doubled(values: Tensor) -> Tensor:
    return F.interpolate(values, scale_factor=2, mode="bilinear", align_corners=False)


def segformer_logits(state: Mapping[str, Tensor], maps: list[Tensor]) -> Tensor:
    """Scores by SegFormer's head, in eval mode."""
    c1, c2, c3, c4 = (_embedded(state, f"linear_c{i + 1}.proj", one, maps) for i, one in enumerate(maps))
    fused = _convolved(state, "linear_fuse", torch.cat([c4, c3, c2, c1], 1))
    return F.conv2d(fused, *_of(state, "linear_pred"))


def _embedded(state: Mapping[str, Tensor], name: str, features: Tensor, maps: list[Tensor]) -> Tensor:
    weight, bias = _of(state, name)
    embedded = torch.einsum("bihw,oi->bohw", features, weight) + bias[:, None, None]
    return F.interpolate(embedded, size=maps[0].shape[2:], mode="bilinear", align_corners=False)


def _convolved(state: Mapping[str, Tensor], name: str, x: Tensor, dilation: int = 1, groups: int = 1) -> Tensor:
    weight = state[f"{name}.conv.weight"]
    x = F.conv2d(x, weight, None, 1, weight.shape[2] // 2 * dilation, dilation, groups)
    norm = (state[f"{name}.bn.{one}"] for one in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *norm).relu()


def _of(state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _norm(state: Mapping[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    weight, bias = _of(state, name)
    return F.layer_norm(x, weight.shape, weight, bias, eps)


_OF_LIBRARY = (
    (r"patch_embed(\d)\.norm", r"encoder.patch_embeddings.\1.layer_norm"),
    (r"patch_embed(\d)\.proj", r"encoder.patch_embeddings.\1.proj"),
    (r"block(\d)\.(\d)\.norm(\d)", r"encoder.block.\1.\2.layer_norm_\3"),
    (r"block(\d)\.(\d)\.attn\.proj", r"encoder.block.\1.\2.attention.output.dense"),
    (r"block(\d)\.(\d)\.attn\.norm", r"encoder.block.\1.\2.attention.self.layer_norm"),
    (r"block(\d)\.(\d)\.attn\.sr", r"encoder.block.\1.\2.attention.self.sr"),
    (r"block(\d)\.(\d)\.attn\.q\b", r"encoder.block.\1.\2.attention.self.query"),
    (r"block(\d)\.(\d)\.mlp\.fc(\d)", r"encoder.block.\1.\2.mlp.dense\3"),
    (r"block(\d)\.(\d)\.mlp\.dwconv\.dwconv", r"encoder.block.\1.\2.mlp.dwconv.dwconv"),
    (r"norm(\d)", r"encoder.layer_norm.\1"),
)


def as_library_published(state: Mapping[str, Tensor]) -> State:
    """An encoder with NVlabs' keys under those of nvidia/mit-b0, as on the hub."""
    found = {}
    for key, value in state.items():
        name, _, last = key.rpartition(".")
        if name == "head":
            found[f"classifier.{last}"] = value
        elif name.endswith(".attn.kv"):
            stage, block = name.split(".")[:2]
            place = f"segformer.encoder.block.{int(stage[-1]) - 1}.{block}.attention.self"
            found[f"{place}.key.{last}"], found[f"{place}.value.{last}"] = value.chunk(2)
        else:
            shape, theirs = next((shape, theirs) for shape, theirs in _OF_LIBRARY if re.match(shape, name))
            renamed = re.sub(r"(embed|block|norm)(\d)", _less_one, name, count=1)
            found[f"segformer.{re.sub(shape, theirs, renamed)}.{last}"] = value
    return found


def _less_one(match: re.Match[str]) -> str:
    return f"{match[1]}{int(match[2]) - 1}"
