"""What a run is: every setting, its type, its range and its default, in one place.

The defaults are the paper's GTA5 → Cityscapes run; "protocol row N" in the field docstrings refers
to the rows of the table in `method/PROTOCOL.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fastuda.classes import PRESETS, ClassSet

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Size = tuple[Positive, Positive]
Channel = Annotated[int, Field(ge=0, le=255)]


class Section(BaseModel):
    """A table of the recipe: unknown keys are errors, values are frozen once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Classes(Section):
    """The classes that are trained, in order; a class's position is its train id (protocol row 24)."""

    preset: Literal["cityscapes19", "cityscapes16", "cityscapes13"] | None = "cityscapes19"
    """A known list; left out when `names` is given."""
    names: tuple[str, ...] | None = None
    """Your own class names, in order."""
    palette: tuple[tuple[Channel, Channel, Channel], ...] | None = None
    """One RGB colour (0-255) a class; Cityscapes' own colours where known, else spread hues."""

    def build(self) -> ClassSet:
        """The class list; raises ValueError when names repeat or the palette's length differs."""
        names = self.names or PRESETS[self.preset or "cityscapes19"]
        return ClassSet.of(names, self.palette)

    @model_validator(mode="before")
    @classmethod
    def _names_win(cls, table: Any) -> Any:
        return {**table, "preset": None} if isinstance(table, Mapping) and table.get("names") else table

    @model_validator(mode="after")
    def _check(self) -> Classes:
        self.build()
        return self


class Domain(Section):
    """One data set on disk: its layout, its folder, and (for `folder`) where files and ids are."""

    layout: Literal["gta5", "synthia", "cityscapes", "folder"]
    """How the files lie: a known data set's own way, or `folder` for globs of your own."""
    root: Path | None = None
    """The data set's folder; `--source` / `--target` set it. It is only ever read."""
    split: str = "train"
    """Cityscapes: the split that training reads."""
    val_split: str = "val"
    """Cityscapes: the split that evaluation reads."""
    listing: Path | None = None
    """A text file with one sample name a line, to narrow the training samples (protocol row 26)."""
    images: str | None = None
    """folder: glob of the training images below `root`, e.g. `images/*.png`."""
    labels: str | None = None
    """folder: glob of their label files; what each `*` stands for must agree with the image's."""
    val_images: str | None = None
    """folder: glob of the evaluation images."""
    val_labels: str | None = None
    """folder: glob of the evaluation labels."""
    ids: dict[int, str] | None = None
    """folder: label value → class name; without it, label values are train ids already."""

    @model_validator(mode="after")
    def _check(self) -> Domain:
        if self.layout == "folder" and not self.images:
            raise ValueError('layout "folder" needs `images`, a glob such as "images/*.png"')
        if self.layout != "folder":
            given = [k for k in ("images", "labels", "val_images", "val_labels", "ids") if getattr(self, k) is not None]
            if given:
                raise ValueError(f'{", ".join(given)}: only for layout "folder", and this is "{self.layout}"')
        return self


class Demo(Section):
    """How many drawn images `fastuda train demo` makes when no data folder is given."""

    num_source: Positive = 300
    """Source training images."""
    num_source_val: Positive = 40
    """Held-out source images, to measure the domain shift."""
    num_target: Positive = 300
    """Unlabelled target training images."""
    num_val: Positive = 50
    """Labelled target images for evaluation."""
    size: Size = (512, 256)
    """Width and height drawn, pixels."""
    seed: int = 0
    """The worlds' seed, apart from the run's own."""


class Data(Section):
    """Where packed copies go, and in which format."""

    cache: Path | None = None
    """Folder of packed copies; default `$FASTUDA_CACHE`, else `~/.cache/fastuda`."""
    pack: Literal["png", "jpeg", "raw"] = "png"
    """Packed image format: `png` and `raw` are lossless, `jpeg` (quality 95) is smallest."""


class Views(Section):
    """What the network sees of an image (protocol rows 1, 2, 5)."""

    source_size: Size = (1280, 720)
    """Width and height of the whole source view."""
    target_size: Size = (1280, 640)
    """Width and height of the whole target view."""
    whole: bool = True
    """L_s and pseudo-labels from whole views; false: from the crops alone (`gta2cs-fast`)."""
    crop_size: Size = (512, 512)
    """Width and height of the crops that are mixed."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """RandomResizedCrop: range of the crop's share of the view's area."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """RandomResizedCrop: range of width / height before resizing."""
    flip: Probability = 0.5
    """Probability of a horizontal flip of the view."""
    blur: Probability = 0.5
    """Probability of a Gaussian blur of the view."""
    blur_radius: NonNegative = 1.0
    """The blur's radius (standard deviation, pixels) is drawn from U(0, this)."""
    source_jitter: Probability = 0.0
    """Probability that the source view of L_s gets the strong view's colours too; 0 in the paper."""

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("must be (low, high) with 0 < low <= high")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _share(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError("is a share of the view's area: at most 1")
        return value


class Jitter(Section):
    """The strong view: photometric changes of the weak crop (protocol row 6, OpenCV units)."""

    probability: Probability = 0.8
    """Probability of the colour changes together."""
    brightness: NonNegative = 0.2
    """Added: U(-b, b) of 255."""
    contrast: NonNegative = 0.2
    """Multiplied: 1 + U(-c, c)."""
    hue: NonNegative = 20
    """Hue shift, OpenCV units (180 is a full turn)."""
    saturation: NonNegative = 30
    """Saturation shift, of 255."""
    value: NonNegative = 20
    """Value shift, of 255."""
    grey: Probability = 0.2
    """Probability of grey."""
    blur: Probability = 0.5
    """Probability of a Gaussian blur."""
    blur_kernel: Annotated[int, Field(ge=3)] = 5
    """Largest blur kernel, pixels, odd; sizes from 3 on are drawn alike."""

    @field_validator("blur_kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("a blur kernel is odd")
        return value


class Model(Section):
    """The network: DeepLab-v2 on a ResNet (protocol rows 16-20)."""

    depth: Literal[18, 50, 101] = 101
    """ResNet depth."""
    width: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Width factor of every stage but the stem."""
    stride_on: Literal["1x1", "3x3"] = "1x1"
    """Which convolution of a bottleneck strides: caffe's first 1×1 or torchvision's 3×3."""
    pool_padding: Literal[0, 1] = 1
    """Padding of the stem's 3×3/2 max-pool, which uses `ceil_mode` (0 in pure Caffe networks)."""
    aspp: tuple[Positive, ...] = (6, 12, 18, 24)
    """Dilations of the classifier's branches; released weights need (6, 12) (protocol row 18)."""
    auxiliary: bool = True
    """A second classifier on layer3 (protocol row 16)."""
    input: Literal["rgb-imagenet", "bgr-caffe"] = "rgb-imagenet"
    """Input convention: RGB mean/std, or BGR 0-255 minus the Caffe mean (protocol row 20)."""
    weights: str = "imagenet"
    """Backbone to start from: `imagenet` (downloaded once), a file, or `random`."""
    convention: Literal["auto", "torchvision", "caffe"] = "auto"
    """For a weights file whose keys do not tell: whose stride and input convention it follows."""


class Optimizer(Section):
    """SGD and its schedule (protocol row 21)."""

    lr_backbone: Annotated[float, Field(gt=0)] = 2.5e-4
    """Learning rate of the pretrained layers."""
    lr_head: Annotated[float, Field(gt=0)] = 2.5e-3
    """Learning rate of the classifiers."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: NonNegative = 5e-4
    """L2 penalty on every trained parameter."""
    poly_power: NonNegative = 0.9
    """lr · (1 − iteration / iterations) ** power."""
    ramp_up: Annotated[int, Field(ge=0)] = 0
    """Iterations over which the learning rate first rises linearly; 0 in the paper."""


class Warmup(Section):
    """Source-only training before adaptation (protocol row 22)."""

    iterations: Annotated[int, Field(ge=0)] = 40_000
    """Iterations with L_s alone; 0 or `--init FILE` skips the stage."""
    optimizer: Optimizer = Optimizer()
    """The stage's own optimiser."""


class Method(Section):
    """The adaptation losses' weights and the teacher (paper eq. 12; protocol rows 3, 4, 11, 15)."""

    teacher: Literal["student", "ema"] = "student"
    """Who makes the pseudo-labels."""
    teacher_batch_norm: Literal["batch", "running"] = "batch"
    """The teacher's BatchNorm statistics: its batch's own (the paper), or the student's running ones."""
    tau: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Confidence threshold of HTCM and of the prototypes."""
    mixed_weight: NonNegative = 0.1
    """λ1, of L_st and L_hts."""
    contrast_weight: NonNegative = 0.01
    """λ2, of L_pro and L_pixel; 0.008 for SYNTHIA."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the averaged weights that are evaluated."""


class Mix(Section):
    """CMix, the class-mix of DACS (paper eq. 2, 3; protocol row 7)."""

    enabled: bool = True
    """Train on the class-mixed view."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the present classes that is pasted (floor, at least one)."""
    min_class: Annotated[int, Field(ge=0)] = 0
    """Only train ids from here on are pasted; 5 in the released code."""
    skip_highest: bool = False
    """Never paste the highest class present: the released code's off-by-one."""


class Htcm(Section):
    """High-confidence target mixing (paper eq. 5, 6; protocol rows 9, 10)."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    enabled: bool = True
    """Train on source crops with confident target pixels pasted in."""
    from_: Literal["target", "mixed"] = Field("target", alias="from")
    """Whose confidence gives the mask: the target's own (paper) or the weak mixed view's (released)."""
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
    pixel_scale: Annotated[float, Field(gt=0)] = 20.0
    """s2, of PiCL."""
    prototype_scale: Annotated[float, Field(gt=0)] = 7.0
    """s1, of ProCL."""
    prototype_samples: Literal["all", "first"] = "all"
    """Which samples of the batch ProCL counts; `first` in the released code."""


class Auxiliary(Section):
    """Losses of the classifier on layer3 (protocol row 16)."""

    weight: NonNegative = 0.1
    """Relative to L_s and L_st."""
    labels: Literal["pasted", "prediction"] = "pasted"
    """For L_st: source label where pasted and two-head average elsewhere, or the weak mixed view's own
    two-head prediction on every pixel (released)."""


class Edge(Section):
    """The authors' later edge variant (protocol row 25)."""

    enabled: bool = False
    """Extra cross-entropy on the bands around paste masks; HTCM also keeps the pasted source classes."""
    paste_weight: NonNegative = 0.1
    """Of the band around the CMix mask, main and auxiliary head."""
    htcm_weight: NonNegative = 0.1
    """Of the band around M_ht outside the pasted classes, relative to L_hts."""
    htcm_auxiliary_weight: NonNegative = 0.01
    """Of the auxiliary head's cross-entropy on x_hts, relative to L_hts."""


class Train(Section):
    """Length and rhythm of the adaptation."""

    iterations: Positive = 250_000
    """Adaptation iterations."""
    batch_size: Positive = 2
    """Images a domain, an iteration and a process."""
    evaluate_every: Positive | None = None
    """Iterations between evaluations; without it, one pass over the target images (protocol row 21)."""
    log_every: Positive = 50
    """Iterations between rows of `log.jsonl`."""
    optimizer: Optimizer = Optimizer()
    """The adaptation's optimiser."""


class Evaluation(Section):
    """How a model is scored (protocol row 23)."""

    size: Size = (1280, 640)
    """Width and height of the network's input."""
    protocol: Literal["full", "released"] = "full"
    """`full`: at the label's own size; `released`: labels resized to `size`."""
    subsets: dict[str, tuple[str, ...]] = {}
    """Further means over named classes, e.g. SYNTHIA's 13."""
    pictures: Annotated[int, Field(ge=0)] = 6
    """Rows of the picture grid."""
    batch_norm: Literal["running", "target"] = "running"
    """Statistics at evaluation: those gathered in training, or gathered anew on target training images."""


class Runtime(Section):
    """How the numbers are computed; no field here changes what is computed."""

    amp: Literal["bf16", "none"] = "bf16"
    """Autocast on a GPU; CPU always computes in fp32."""
    channels_last: bool = True
    """NHWC activations."""
    loader_threads: Positive = 4
    """DALI's CPU threads a pipeline."""
    deterministic: bool = False
    """Refuse kernels that differ from run to run."""


class Recipe(Section):
    """One run, whole."""

    description: str = ""
    """One line: what this recipe is."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of initialisation, shuffling, augmentation and mixing."""
    classes: Classes = Classes()
    source: Domain
    target: Domain
    demo: Demo | None = None
    data: Data = Data()
    views: Views = Views()
    jitter: Jitter = Jitter()
    model: Model = Model()
    warmup: Warmup = Warmup()
    method: Method = Method()
    mix: Mix = Mix()
    htcm: Htcm = Htcm.model_validate({})
    contrast: Contrast = Contrast()
    auxiliary: Auxiliary = Auxiliary()
    edge: Edge = Edge()
    train: Train = Train()
    eval: Evaluation = Evaluation()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        names = self.classes.build().names
        for subset, members in self.eval.subsets.items():
            unknown = [name for name in members if name not in names]
            if unknown:
                raise ValueError(f"eval.subsets.{subset} names no class of this recipe: {', '.join(unknown)}")
        for where in ("source", "target"):
            ids = getattr(self, where).ids or {}
            unknown = sorted({name for name in ids.values() if name not in names and name != "ignore"})
            if unknown:
                raise ValueError(
                    f"{where}.ids names no class of this recipe: {', '.join(unknown)} "
                    f'(classes: {", ".join(names)}; "ignore" for values to leave out)'
                )
        if self.contrast.on == "hts" and not self.htcm.enabled and (self.contrast.pixel or self.contrast.prototype):
            raise ValueError('contrast.on = "hts" needs htcm.enabled')
        if self.edge.enabled and not (self.mix.enabled and self.htcm.enabled):
            raise ValueError("edge.enabled needs mix.enabled and htcm.enabled")
        return self
