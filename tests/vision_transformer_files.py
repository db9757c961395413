"""DINOv2's and DINOv3's checkpoints made on the spot, under Facebook Research's own keys, and what they compute.

The forward pass is plain functions of the checkpoint's own keys and knows nothing of fastuda's network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from mix_transformer_files import Made, State
from torch import Tensor
from torch.nn import functional as F

WIDTH, DEPTH, HEADS, REGISTERS = 384, 12, 6, 4
"""Of the small ones."""
READ = (2, 5, 8, 11)


def dinov2(registers: bool = False) -> State:
    """dinov2_vits14_pretrain.pth or dinov2_vits14_reg4_pretrain.pth."""
    made = _blocks(14)
    made.state["pos_embed"] = made.random(1, 1 + 37 * 37, WIDTH)
    made.state["mask_token"] = made.random(1, WIDTH)
    if registers:
        made.state["register_tokens"] = made.random(1, REGISTERS, WIDTH)
    return made.state


def dinov3() -> State:
    """dinov3_vits16_pretrain_lvd1689m-….pth."""
    made = _blocks(16)
    made.state["mask_token"] = made.random(1, WIDTH)
    made.state["storage_tokens"] = made.random(1, REGISTERS, WIDTH)
    made.state["rope_embed.periods"] = _periods()
    for i in range(DEPTH):
        made.state[f"blocks.{i}.attn.qkv.bias"][WIDTH : 2 * WIDTH] = 0
        mask = torch.ones(3 * WIDTH)
        mask[WIDTH : 2 * WIDTH] = 0
        made.state[f"blocks.{i}.attn.qkv.bias_mask"] = mask
    return made.state


def _blocks(patch: int) -> Made:
    made = Made()
    made.state["cls_token"] = made.random(1, 1, WIDTH)
    made.layer("patch_embed.proj", WIDTH, 3, patch, patch)
    for i in range(DEPTH):
        made.norm(f"blocks.{i}.norm1", WIDTH)
        made.layer(f"blocks.{i}.attn.qkv", 3 * WIDTH, WIDTH)
        made.layer(f"blocks.{i}.attn.proj", WIDTH, WIDTH)
        made.state[f"blocks.{i}.ls1.gamma"] = 1 + made.random(WIDTH)
        made.norm(f"blocks.{i}.norm2", WIDTH)
        made.layer(f"blocks.{i}.mlp.fc1", 4 * WIDTH, WIDTH)
        made.layer(f"blocks.{i}.mlp.fc2", WIDTH, 4 * WIDTH)
        made.state[f"blocks.{i}.ls2.gamma"] = 1 + made.random(WIDTH)
    made.norm("norm", WIDTH)
    return made


def _periods() -> Tensor:
    return 100 ** (2 * torch.arange(16) / 32)


def maps_of(state: Mapping[str, Tensor], images: Tensor) -> list[Tensor]:
    """Feature maps of images float [B, 3, H, W] after four blocks, the norm applied."""
    patches = F.conv2d(images, *_of(state, "patch_embed.proj"), stride=state["patch_embed.proj.weight"].shape[2])
    size = patches.shape[2:]
    patches = patches.flatten(2).mT
    classes, rotated = state["cls_token"], "storage_tokens" in state
    if not rotated:
        positions = state["pos_embed"]
        square = positions[:, 1:].mT.unflatten(2, (37, 37))
        antialias = "register_tokens" in state
        square = F.interpolate(square, size=size, mode="bicubic", align_corners=False, antialias=antialias)
        patches, classes = patches + square.flatten(2).mT, classes + positions[:, :1]
    extra = state.get("register_tokens", state.get("storage_tokens", torch.zeros(1, 0, WIDTH)))
    tokens = torch.cat([one.expand(len(images), -1, -1) for one in (classes, extra)] + [patches], 1)
    num_extra = tokens.shape[1] - patches.shape[1]
    maps = []
    for i in range(DEPTH):
        block = f"blocks.{i}"
        eps = 1e-5 if rotated else 1e-6
        y = F.linear(_norm(state, f"{block}.norm1", tokens, eps), *_of(state, f"{block}.attn.qkv"))
        query, key, value = y.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        if rotated:
            query, key = (_rotated(one, size, num_extra) for one in (query, key))
        weights = (query @ key.mT / math.sqrt(WIDTH / HEADS)).softmax(-1)
        y = F.linear((weights @ value).transpose(1, 2).flatten(2), *_of(state, f"{block}.attn.proj"))
        tokens = tokens + y * state[f"{block}.ls1.gamma"]
        y = F.gelu(F.linear(_norm(state, f"{block}.norm2", tokens, eps), *_of(state, f"{block}.mlp.fc1")))
        tokens = tokens + F.linear(y, *_of(state, f"{block}.mlp.fc2")) * state[f"{block}.ls2.gamma"]
        if i in READ:
            maps.append(_norm(state, "norm", tokens, eps)[:, num_extra:].mT.unflatten(2, size))
    return maps


def _rotated(x: Tensor, size: torch.Size, num_extra: int) -> Tensor:
    """Pairs of features (i, i + half) turned by the patch's row and column, a frequency each."""
    half = WIDTH // HEADS // 2
    rows, columns = (2 * (torch.arange(side) + 0.5) / side - 1 for side in size)
    turns = torch.cat(
        [
            (rows[:, None, None] / _periods()).expand(-1, size[1], -1),
            (columns[None, :, None] / _periods()).expand(size[0], -1, -1),
        ],
        2,
    )
    angle = 2 * math.pi * turns.flatten(0, 1)
    extra, patches = x[:, :, :num_extra], x[:, :, num_extra:]
    real, imaginary = patches[..., :half], patches[..., half:]
    turned = torch.cat([real * angle.cos() - imaginary * angle.sin(), imaginary * angle.cos() + real * angle.sin()], -1)
    return torch.cat([extra, turned], 2)


def _of(state: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _norm(state: Mapping[str, Tensor], name: str, x: Tensor, eps: float) -> Tensor:
    weight, bias = _of(state, name)
    return F.layer_norm(x, weight.shape, weight, bias, eps)


_TOP = {
    "pos_embed": "embeddings.position_embeddings",
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "register_tokens": "embeddings.register_tokens",
    "storage_tokens": "embeddings.register_tokens",
}
_OF_DINOV2 = (
    (r"patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"norm\.", "layernorm."),
    (r"blocks\.(\d+)\.attn\.proj", r"encoder.layer.\1.attention.output.dense"),
    (r"blocks\.(\d+)\.ls(\d)\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
    (r"blocks\.(\d+)\.", r"encoder.layer.\1."),
)
_OF_DINOV3 = (
    (r"patch_embed\.proj", "embeddings.patch_embeddings"),
    (r"blocks\.(\d+)\.attn\.proj", r"layer.\1.attention.o_proj"),
    (r"blocks\.(\d+)\.ls(\d)\.gamma", r"layer.\1.layer_scale\2.lambda1"),
    (r"blocks\.(\d+)\.mlp\.fc1", r"layer.\1.mlp.up_proj"),
    (r"blocks\.(\d+)\.mlp\.fc2", r"layer.\1.mlp.down_proj"),
    (r"blocks\.(\d+)\.", r"layer.\1."),
)


def as_library_published(state: Mapping[str, Tensor]) -> State:
    """The same under the keys of facebook/dinov2-small or facebook/dinov3-vits16-pretrain-lvd1689m, as on the hub."""
    third = "storage_tokens" in state
    found = {}
    for key, value in state.items():
        if key.endswith("bias_mask") or key.startswith("rope_embed"):
            continue
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", key):
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                if third and (name, match[2]) == ("key", "bias"):
                    continue
                module = f"{name[0]}_proj" if third else f"attention.{name}"
                above = "layer" if third else "encoder.layer"
                found[f"{above}.{match[1]}.attention.{module}.{match[2]}"] = part.contiguous()
            continue
        shape, theirs = next(
            ((shape, theirs) for shape, theirs in (_OF_DINOV3 if third else _OF_DINOV2) if re.match(shape, key)),
            ("^", ""),
        )
        found[_TOP.get(key, re.sub(shape, theirs, key, count=1))] = value
    if third:
        found["embeddings.mask_token"] = found["embeddings.mask_token"][None]
    return found
