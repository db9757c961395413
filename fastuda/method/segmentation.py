"""Cross-entropy of a network's classifiers at the labels' size (paper eq. 1, 4, 7; protocol row 16)."""

from __future__ import annotations

from torch import Tensor

from fastuda.model.segmenter import Outputs
from fastuda_kernels.upsample_cross_entropy import upsample_cross_entropy


def segmentation_loss(
    logits: Outputs,
    labels: Tensor,
    auxiliary_weight: float,
    *,
    auxiliary_labels: Tensor | None = None,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of both heads, the auxiliary one weighted (paper eq. 1, 4, 7; protocol row 16).

    Of a network of two scales the main head's is (1 − λ_d) · that of the whole answer + λ_d · that of the detail's own,
    under labels, mask and weights of the detail's pixels (HRDA; Hoyer et al., ECCV '22).

    Args:
        logits: low-resolution logits of both heads.
        labels: uint8 [B, H, W]; `auxiliary_labels` likewise, where the auxiliary head learns others.
        auxiliary_weight: relative to the main head's loss; 0 leaves the auxiliary head out.
        mask: bool [B, H, W], pixels that count; all without it.
        weight: float [B, H, W], on each pixel's loss; the mean is over the number of pixels all the same.

    Returns:
        Scalar, the mean over pixels.
    """
    corners, detail = logits.align_corners, logits.detail
    loss = upsample_cross_entropy(logits.logits, labels, mask=mask, weight=weight, align_corners=corners)
    if detail is not None:
        cut_labels, cut_mask, cut_weight = (
            None if pixels is None else detail.cut(pixels) for pixels in (labels, mask, weight)
        )
        assert cut_labels is not None
        own = upsample_cross_entropy(detail.logits, cut_labels, mask=cut_mask, weight=cut_weight, align_corners=corners)
        loss = (1 - detail.weight) * loss + detail.weight * own
    if logits.auxiliary is not None and auxiliary_weight > 0:
        own_labels = labels if auxiliary_labels is None else auxiliary_labels
        loss = loss + auxiliary_weight * upsample_cross_entropy(
            logits.auxiliary, own_labels, mask=mask, weight=weight, align_corners=corners
        )
    return loss
