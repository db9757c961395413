"""Runs every operation once on a GPU, at sizes that fit no block: what compute-sanitizer watches."""

from __future__ import annotations

import torch

from fastuda_kernels.batch_norm import batch_norm
from fastuda_kernels.masked_mix import Normalisation, choose_classes, masked_mix, normalise
from fastuda_kernels.pixel_contrast import pixel_contrast
from fastuda_kernels.pseudo_label import argmax_confusion, pseudo_label
from fastuda_kernels.upsample_cross_entropy import upsample_cross_entropy

RGB = Normalisation((123.0, 116.0, 103.0), (0.017, 0.017, 0.017), True, torch.bfloat16)


def main() -> None:
    torch.manual_seed(0)
    device = torch.device("cuda")
    logits = torch.randn(3, 19, 7, 11, device=device, requires_grad=True)
    labels = torch.randint(0, 19, (3, 53, 87), device=device).to(torch.uint8)
    upsample_cross_entropy(logits, labels, mask=labels != 3).backward()
    weight = torch.rand(labels.shape, device=device)
    upsample_cross_entropy(logits, labels, weight=weight, align_corners=False).backward()
    rows = logits.flatten(2).transpose(1, 2)
    pixel_contrast(rows, rows.flip(1), from_logits=True, valid=labels[:, 0, :77] != 1).backward()
    boxes = torch.tensor([[1.0, 2.0, 30.0, 40.0]] * 3, device=device)
    label, confidence = pseudo_label(logits, (53, 87), auxiliary=logits, view_size=(53, 87), boxes=boxes)
    pseudo_label(logits, (53, 87), view_size=(53, 87), boxes=boxes, align_corners=False)
    argmax_confusion(logits, label)
    argmax_confusion(logits, label, align_corners=False)
    crops = [torch.randint(0, 256, (3, 53, 87, 3), device=device).to(torch.uint8) for _ in range(4)]
    chosen = choose_classes(labels, torch.rand(3, 19, device=device))
    masked_mix(
        *crops, labels, label, confidence, chosen, normalisation=RGB, confidence_threshold=0.5, bands=True
    )  # fmt: skip
    masked_mix(
        *crops, labels, label, confidence, paste_mask=labels > 9, normalisation=RGB, confidence_threshold=0.5,
        bands=True,
    )  # fmt: skip
    normalise(crops[0], RGB)
    for size, num_groups in (((6, 19, 9, 11), 3), ((2, 264, 33, 35), 1)):
        channels = [torch.rand(size[1], device=device) for _ in range(4)]
        x, residual = (torch.randn(size, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
        batch_norm(x, *channels, momentum=0.1, num_groups=num_groups, residual=residual, relu=True).sum().backward()
        batch_norm(x, *channels, momentum=0.1, num_groups=num_groups).sum().backward()
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
