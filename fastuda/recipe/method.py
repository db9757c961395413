"""Recipe tables about the method: teacher, mixes, losses and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, SerializeAsAny, model_validator

from fastuda.recipe.mask import ClassMask, Mask
from fastuda.recipe.section import NonNegative, Section


class Method(Section):
    """The adaptation losses' weights and the teacher (paper eq. 12; protocol rows 3, 4, 11, 15)."""

    of_warmup: ClassVar[tuple[str, ...] | None] = ("ema_decay", "ema_rises")

    teacher: Literal["student", "ema"] = "student"
    """Who makes the pseudo-labels."""
    teacher_batch_norm: Literal["batch", "running"] = "batch"
    """The teacher's BatchNorm statistics: its batch's own (the paper), or the student's running ones."""
    running_statistics: Literal["all", "views"] = "all"
    """Which passes update the BatchNorm statistics that evaluation uses: every one (the paper), or those
    over views alone, not the mixed crops, whose scale and content the evaluation never sees."""
    student_batch_norm: Literal["batch", "running"] = "batch"
    """The student's BatchNorm statistics while it adapts: each batch's own (the paper), or the running ones, which then
    stay as the warm-up left them; then let `train.optimizer.ramp_up` begin slowly."""
    tau: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Confidence above which a pseudo-label is confident, where `confident` is `above-tau`."""
    confident: Literal["above-tau", "class-balanced"] = "above-tau"
    """Which pseudo-labels HTCM pastes, the prototypes average and `mix.pseudo_labels = "confident"` learns: those above
    `tau` (the paper), or of each class in the batch the most confident `portion`, as in CBST. With `htcm.from` =
    `mixed` that is of the class-mixed view's labels, pasted pixels among them."""
    portion: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of each class's pseudo-labels that is confident, where `confident` is `class-balanced`."""
    mixed_weight: NonNegative = 0.1
    """λ1, of L_st and L_hts."""
    contrast_weight: NonNegative = 0.01
    """λ2, of L_pro and L_pixel; 0.008 for SYNTHIA."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the averaged weights that are evaluated."""
    ema_rises: bool = False
    """Let that decay rise to its value as 1 − 1 / (t + 1), with t the iterations of the stage so far, so that an
    average that teaches soon forgets how it began; false in the paper."""


class Mix(Section):
    """CMix, the class-mix of DACS (paper eq. 2, 3; protocol row 7)."""

    enabled: bool = True
    """Train on the class-mixed view."""
    mask: SerializeAsAny[Mask] = ClassMask()
    """Which source pixels are pasted."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the present classes that is pasted (floor, at least one)."""
    pseudo_labels: Literal["all", "confident"] = "all"
    """Which pseudo-labels L_st learns, with the edge variant's band around the paste: every one (the paper), or those
    that `method.confident` takes. Other pixels are ignored."""
    min_class: Annotated[int, Field(ge=0, lt=255)] = 0
    """Only train ids from here on are pasted; 5 in the released code."""
    off_by_one: bool = False
    """The released code's slip: instead of each class drawn, paste the entry before it in the sorted list of what is
    present, ignored pixels first. Unless nothing lies below `min_class`, the highest class is then never pasted, and
    the entry just below `min_class` can be."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, table: Any) -> Any:
        """Recipes saved beside earlier runs hold every field, this one under its old name."""
        if not (isinstance(table, Mapping) and "skip_highest" in table):
            return table
        others = {key: value for key, value in table.items() if key != "skip_highest"}
        return {"off_by_one": table["skip_highest"], **others}


class SourceMix(Section):
    """The second paste of DSP, from source to source, and how opaque pastes are (paper table 4; protocol row 27)."""

    enabled: bool = False
    """Train on source crops with classes of the batch's previous source crop pasted in."""
    opacity: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the pasted pixel in both pastes, source to source and source to target: 1 hard, below soft."""
    long_tail: tuple[str, ...] = ("rider", "bus", "train", "motorcycle", "bicycle")
    """Classes that are pasted wherever they are present, beside those that `mix` chooses."""
    weight: NonNegative = 1.0
    """Of the loss on the source-to-source image, relative to L_s."""


class Htcm(Section):
    """High-confidence target mixing (paper eq. 5, 6; protocol rows 9, 10)."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    enabled: bool = True
    """Train on source crops with confident target pixels pasted in."""
    from_: Literal["target", "mixed"] = Field("target", alias="from")
    """Whose prediction gives mask and labels: the target's own (paper) or the weak mixed view's (released)."""
    samples: Literal["all", "first"] = "all"
    """Which samples of the batch L_hts counts; `first` in the released code."""


class Contrast(Section):
    """The contrastive losses (paper eq. 8-11; protocol rows 12-14)."""

    pixel: bool = True
    """Pixel-level loss, PiCL."""
    prototype: bool = True
    """Prototype-level loss, ProCL."""
    on: Literal["st", "hts"] = "st"
    """Which mixed image the losses work on (paper table 6)."""
    pixel_scale: Annotated[float, Field(gt=0, le=80)] = 20.0
    """s2, of PiCL."""
    prototype_scale: Annotated[float, Field(gt=0, le=80)] = 7.0
    """s1, of ProCL."""
    prototype_samples: Literal["all", "first"] = "all"
    """Which samples of the batch ProCL counts; `first`, in the released code, is the first one's loss divided by the
    size of the batch all the same."""


class Auxiliary(Section):
    """Losses of the classifier on layer3 (protocol row 16)."""

    of_warmup: ClassVar[tuple[str, ...] | None] = ("weight",)

    weight: NonNegative = 0.1
    """Relative to L_s and L_st."""
    labels: Literal["pasted", "prediction"] = "pasted"
    """For L_st: source label where pasted and two-head average elsewhere, or the weak mixed view's own two-head
    prediction on every pixel (released); in the edge variant this head then learns it on x_hts's target pixels too."""


class Edge(Section):
    """The authors' later edge variant (protocol row 25)."""

    enabled: bool = False
    """Extra cross-entropy on the bands around paste masks; HTCM also keeps the pasted source classes."""
    confidence: Literal["htcm", "crop"] = "htcm"
    """Whose prediction gives M_ht and its labels: as `htcm.from` says, or that of a pass of its own over the un-mixed
    weak target crop (released): no gradient, BatchNorm as in the student's passes, whose statistics it moves too."""
    samples: Literal["all", "first"] = "all"
    """Which samples of the batch count around M_ht and for the auxiliary head on x_hts; `first` as released."""
    all_or_none: bool = False
    """Leave a band out of the loss when any image of the batch has none of that band (released)."""
    paste_weight: NonNegative = 1.0
    """Of the band around the CMix mask, main and auxiliary head, relative to L_st."""
    htcm_weight: NonNegative = 0.1
    """Of the band around M_ht outside the pasted classes, relative to L_hts."""
    htcm_auxiliary_weight: NonNegative = 0.01
    """Of the auxiliary head's cross-entropy on x_hts, relative to L_hts."""
