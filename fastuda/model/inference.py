"""A model's answer at evaluation: one pass, or the average over windows, mirrored and rescaled images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastuda.model.passes import Passes
from fastuda.model.segmenter import Outputs, Segmenter
from fastuda.model.windows import starts
from fastuda.recipe import Evaluation


@torch.no_grad()
def evaluation_logits(model: Segmenter, images: Tensor, settings: Evaluation, passes: Passes) -> Outputs:
    """Main-head logits of uint8 RGB [B, H, W, 3], whose softmax is the model's answer (protocol row 23).

    Without `eval.flip` and with the one scale 1 these are the network's own, [B, C, H', W'], or with `eval.window` the
    averages of those of overlapping windows, [B, C, H, W]. Otherwise the
    softmax of every mirrored and rescaled pass is brought to H×W and averaged; its logarithm comes back,
    float32 [B, C, H, W]. Either way `align_corners` of what comes back is how to bring it to a label's size.
    """
    if settings.scales == (1.0,) and not settings.flip:
        return _logits(model, images, settings, passes)
    total: Tensor | None = None
    for scale in settings.scales:
        scaled = _rescaled(images, scale)
        for mirrored in (False, True) if settings.flip else (False,):
            outputs = _logits(model, scaled.flip(2) if mirrored else scaled, settings, passes)
            logits, size, corners = outputs.logits.float(), images.shape[1:3], outputs.align_corners
            full = F.interpolate(logits, size=size, mode="bilinear", align_corners=corners)
            answer = (full.flip(3) if mirrored else full).softmax(1)
            total = answer if total is None else total + answer
    assert total is not None
    passes_made = len(settings.scales) * (2 if settings.flip else 1)
    average = (total / passes_made).clamp(min=torch.finfo(torch.float32).tiny)
    return Outputs(average.log(), align_corners=corners)


def _logits(model: Segmenter, images: Tensor, settings: Evaluation, passes: Passes) -> Outputs:
    """Main-head logits of a pass over the whole, or at H×W of passes over windows, averaged where they overlap."""
    height, width = images.shape[1:3]
    if settings.window is None or (settings.window[0] >= width and settings.window[1] >= height):
        return passes.raw(model, images).main_head()
    window = (min(settings.window[0], width), min(settings.window[1], height))
    across, down = settings.window_steps
    total: Tensor | None = None
    times = torch.zeros(height, width, device=images.device)
    for top in starts(height, window[1], down):
        for left in starts(width, window[0], across):
            place = (slice(top, top + window[1]), slice(left, left + window[0]))
            outputs = passes.raw(model, images[:, place[0], place[1]]).main_head()
            logits, corners = outputs.logits.float(), outputs.align_corners
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            size = (window[1], window[0])
            total[..., place[0], place[1]] += F.interpolate(logits, size=size, mode="bilinear", align_corners=corners)
            times[place] += 1
    assert total is not None
    return Outputs(total / times, align_corners=corners)


def _rescaled(images: Tensor, scale: float) -> Tensor:
    """uint8 [B, H, W, 3] at `scale` times its size, bicubic as evaluation images are resized."""
    if scale == 1:
        return images
    height, width = (max(1, round(side * scale)) for side in images.shape[1:3])
    planes = images.permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, size=(height, width), mode="bicubic", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
