"""The mixed images of an iteration, by name, with the labels that go with them and the student's answers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fastuda.method.pseudo_labels import PseudoLabels
from fastuda.method.source_mix import SourcePaste
from fastuda.model.segmenter import Outputs
from fastuda_kernels.masked_mix import MixedCrops


class MixedViews(NamedTuple):
    """Mixed crops, and what the student says of the images that a loss needs."""

    st: MixedCrops
    """CMix's images and labels."""
    hts: MixedCrops
    """HTCM's image and label, and the confident labels."""
    st_auxiliary_label: Tensor
    """uint8 [B, H, W]: what the auxiliary head learns on the class-mixed view (protocol row 16)."""
    hts_auxiliary_label: Tensor
    """uint8 [B, H, W]: what it learns on the HTCM image of the edge variant (row 25 d)."""
    pseudo: PseudoLabels
    """What the teacher says of the target crops, with its own confidences, whatever `method.confident` says;
    `by_confidence_rule` applies that."""
    under: PseudoLabels | None
    """What the target shows under a soft paste; None when pastes are hard."""
    ss: SourcePaste | None
    """DSP's source-to-source image; None in recipes without it."""
    outputs: dict[str, Outputs]
    """The student's answers by view: `strong` and `weak`, the class-mixed views; `hts`, the HTCM image; `hts weak`,
    made from weak crops; `ss`; and views that further terms bring, under their names."""
    pseudo_weight: Tensor | None = None
    """float32 [B, H, W]: what each of the teacher's labels counts (`quality`); None where all count alike."""
