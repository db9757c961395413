"""Checkpoints of networks that fastuda does not have, told from their keys."""

from __future__ import annotations

import re
from collections.abc import Collection

_SHOWN = 5
# A key that only such files have → what they are. The first that is found says it.
_FAMILIES: tuple[tuple[str, str], ...] = (
    (
        r"imnet_model\.|ema_model\.(backbone|decode_head|model)\.",
        "a checkpoint of DAFormer, HRDA or MIC: a whole mmsegmentation trainer, student (`model.`), teacher "
        "(`ema_model.`) and often an ImageNet copy (`imnet_model.`), with another encoder than a MiT",
    ),
    (
        r"(.*\.)?(decode_head\.(fuse_layer|embed_layers)|scale_attention|hr_|decode_head\.head\.)",
        "a checkpoint of the DAFormer, HRDA and MIC family with another encoder than a MiT",
    ),
    (
        r"(.*\.)?(decode_head|auxiliary_head\.conv_seg)\.",
        "an mmsegmentation checkpoint (`backbone.`, `decode_head.`), whose network is described by its own config file",
    ),
    (r"(segformer|decode_head\.linear_c)\.", "a part of a SegFormer of the transformers library"),
    (r"(backbone|model)?\.?(patch_embed\d?|block1|blocks\.0)\.", "a transformer (ViT, MiT or DINOv2)"),
    (r"classifier\.\d+\.|backbone\.layer\d\..*", "a segmentation network such as torchvision's DeepLabV3 or FCN"),
)


def foreign(keys: Collection[str]) -> str:
    """What a file of those keys is, as far as they tell, with the first keys found and the ones expected."""
    what = next((words for shape, words in _FAMILIES if any(re.match(shape, key) for key in keys)), None)
    shown = ", ".join(sorted(keys)[:_SHOWN]) or "no tensors at all"
    intro = f"it is {what}; it was trained as a foreign network" if what else "it holds a foreign network"
    return (
        f"{intro}, none of fastuda's: its keys ({shown}) are neither torchvision's ResNets' (conv1.weight, "
        "layer1.0.conv1.weight …), nor a DeepLab initialisation's (Scale.conv1.weight …), nor a released DeepLab-v2 "
        "checkpoint's (layer5.conv2d_list.0.weight …), nor fastuda's (backbone.conv1.weight, head.branches.0.weight …)"
    )
