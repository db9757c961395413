"""Recipe tables about data: classes, domains, where packs go, and what the network sees of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from fastuda.classes import PRESETS, ClassSet
from fastuda.errors import nearest
from fastuda.layouts import FOLDER, LAYOUTS
from fastuda.recipe.section import (
    Channel,
    Count,
    Globs,
    NonNegative,
    Probability,
    Section,
    Seed,
    Size,
    UserPath,
)

_FLATTEST = 100
"""The greatest ratio of a crop's sides."""


class Classes(Section):
    """The classes that are trained, in order; a class's position is its train id (protocol row 24)."""

    of_warmup: ClassVar[tuple[str, ...] | None] = None

    preset: Literal["cityscapes19", "cityscapes16", "cityscapes13"] | None = "cityscapes19"
    """A known list; left out when `names` is given."""
    names: tuple[str, ...] | None = None
    """Your own class names, in order."""
    palette: tuple[tuple[Channel, Channel, Channel], ...] | None = None
    """One RGB colour (0-255) a class; Cityscapes' own colours where known, else spread hues."""
    merged: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Class → further classes of the data sets that count as it, in both domains: `car = ["truck", "bus"]`, by the
    names that layouts and `ids` have, so not where label values are train ids. What is neither listed nor merged is
    ignored."""

    def build(self) -> ClassSet:
        """The class list; raises ValueError when names repeat, or `palette` or `merged` does not fit them."""
        names = self.names or PRESETS[self.preset or "cityscapes19"]
        return ClassSet.of(names, self.palette, self.merged)

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

    of_warmup: ClassVar[tuple[str, ...] | None] = None

    layout: str
    """How the files lie: a known data set's own way (`fastuda data check --help` names them), or `folder` for globs of
    your own."""
    root: UserPath | None = None
    """The data set's folder; `--source` / `--target` set it. It is only ever read."""
    split: str = "train"
    """The split that training reads, by its official name, of a known data set that has splits."""
    val_split: str = "val"
    """The split that evaluation reads, likewise; it needs labels."""
    listing: UserPath | None = None
    """A text file with one sample name a line, to narrow the training samples (protocol row 26)."""
    labelled: UserPath | None = None
    """target: a text file that names training images, one a line, whose labels are learnt too: every second image of
    the source's batches is one of them, at `views.source_size`. With `train.labels = "target"` none but those are
    learnt."""
    images: Globs | None = None
    """folder: glob of the training images below `root`, or a list of globs: `images/*.{jpg,png}`, `images/*`."""
    labels: Globs | None = None
    """folder: glob of their label files; what each `*` stands for must agree with the image's. Those of the target are
    read with `train.labels = "target"` alone."""
    val_images: Globs | None = None
    """folder: glob of the evaluation images."""
    val_labels: Globs | None = None
    """folder: glob of the evaluation labels."""
    ids: dict[int, str] | None = None
    """folder: label value → class name, or one merged into it, or "ignore", for every value that occurs.

    Without it label values are train ids, and 255 is ignored.
    """

    @property
    def holds_train_ids(self) -> bool:
        """Whether label values are taken for train ids, 255 being ignored, as the recipe says nothing of them."""
        return LAYOUTS[self.layout].by_globs and self.ids is None

    @property
    def lacks_training_labels(self) -> str:
        """Why there are no labels of the training images, as far as the recipe tells; empty where there are."""
        layout = LAYOUTS[self.layout]
        if layout.by_globs:
            return "" if self.labels else f'layout "{layout.name}" has them where `labels` is a glob of their files'
        if self.split in layout.splits and self.split not in layout.labelled:
            return f"{layout.title} comes without labels of its split {self.split}"
        return ""

    @field_validator("layout")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in LAYOUTS:
            raise ValueError(f"no such layout{nearest(value, [*LAYOUTS])}; there are {', '.join(LAYOUTS)}")
        return value

    @model_validator(mode="after")
    def _check(self) -> Domain:
        by_globs = LAYOUTS[self.layout].by_globs
        if by_globs and not self.images:
            raise ValueError(f'layout "{self.layout}" needs `images`, a glob such as "images/*.png"')
        if not by_globs:
            given = [k for k in ("images", "labels", "val_images", "val_labels", "ids") if getattr(self, k) is not None]
            if given:
                raise ValueError(f'{", ".join(given)}: only for layout "{FOLDER.name}", and this is "{self.layout}"')
        return self


class Demo(Section):
    """How many drawn images `fastuda train demo` makes when no data folder is given."""

    of_warmup: ClassVar[tuple[str, ...] | None] = None

    num_source: Count = 300
    """Source training images."""
    num_source_val: Count = 40
    """Held-out source images, to measure the domain shift."""
    num_target: Count = 300
    """Unlabelled target training images."""
    num_val: Count = 50
    """Labelled target images for evaluation."""
    size: tuple[Annotated[int, Field(ge=64, le=8192)], Annotated[int, Field(ge=32, le=8192)]] = (512, 256)
    """Width and height drawn, pixels."""
    seed: Seed = 0
    """The worlds' seed, apart from the run's own."""


class Data(Section):
    """Where packed copies go, in which format, and what becomes of samples that fail."""

    of_warmup: ClassVar[tuple[str, ...] | None] = None

    cache: UserPath | None = None
    """Folder of packed copies; default `$FASTUDA_CACHE`, else `~/.cache/fastuda`."""
    pack: Literal["png", "jpeg", "raw"] = "png"
    """Packed image format: `png` and `raw` are lossless, `jpeg` (quality 95) is smallest."""
    shard_mb: Annotated[float, Field(ge=0, le=65536)] = 0.0
    """Lay training packs out in files of about so many MiB, too, that are read from beginning to end: for network file
    systems and object storage, where each of many small files costs a round trip. 64 is a good size; 0 reads single
    files. Samples then come in another order, shard by shard."""
    shards_mixed: Annotated[int, Field(ge=1, le=1024)] = 4
    """Shards whose samples are shuffled among one another; a process holds twice as many of each domain in memory."""
    max_unpaired: Probability = 0.05
    """Images, or labels, without a partner: a greater share of them than this is an error."""
    on_error: Literal["stop", "skip"] = "stop"
    """What a training sample does that can no longer be read or decoded: `stop` the run, or be left out (`skip`) with
    the next sample in its place."""
    max_failed: Annotated[int, Field(ge=0)] = 10
    """skip: how many samples of a domain may be replaced before the run stops after all."""


class Views(Section):
    """What the network sees of an image (protocol rows 1, 2, 5)."""

    of_warmup: ClassVar[tuple[str, ...] | None] = None

    source_size: Size = (1280, 720)
    """Width and height of the whole source view."""
    target_size: Size = (1280, 640)
    """Width and height of the whole target view."""
    whole: bool = True
    """L_s and pseudo-labels from whole views; false: from the crops alone (`gta2cs-fast`)."""
    crop_size: Size = (512, 512)
    """Width and height of the crops that are mixed."""
    crop: Literal["resized", "cut"] = "resized"
    """How crops are made: RandomResizedCrop (the paper), or windows of `crop_size` as they are (DAFormer)."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """RandomResizedCrop: range of the crop's share of the view's area."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """RandomResizedCrop: range of width / height before resizing."""
    antialias: bool = True
    """Whether a crop that is made smaller is smoothed on the way; false samples it as OpenCV's linear resize does."""
    flip: Probability = 0.5
    """Probability of a horizontal flip of the view."""
    blur: Probability = 0.5
    """Probability of a Gaussian blur of the view."""
    blur_radius: Annotated[float, Field(ge=0, le=100)] = 1.0
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

    @field_validator("crop_ratio")
    @classmethod
    def _ratio(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] < 1 / _FLATTEST or value[1] > _FLATTEST:
            raise ValueError(f"must lie between 1/{_FLATTEST} and {_FLATTEST}")
        return value


class Sampling(Section):
    """Which source images the adaptation draws: each once an epoch (the paper), or by rare classes (DAFormer)."""

    rare_classes: bool = False
    """Draw a class, the rarer the likelier, then an image that shows it, and a crop that does. Classes are counted in
    the packed labels."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.01
    """A class of the share f of all labelled pixels is drawn with a probability ∝ exp((1 − f) / this)."""
    min_pixels: Annotated[int, Field(ge=1, le=10**9)] = 3000
    """Pixels of a class, in the packed label, from which an image counts as showing it."""
    min_crop_pixels: Annotated[int, Field(ge=0, le=10**9)] = 1500
    """Pixels of the class, of the packed label, that its crop shows; the tenth crop is taken whatever it shows."""


class Jitter(Section):
    """The strong view: photometric changes of the weak crop (protocol row 6, OpenCV units)."""

    of_warmup: ClassVar[tuple[str, ...] | None] = None

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
    blur_kernel: Annotated[int, Field(ge=3, le=255)] = 5
    """Largest blur kernel, pixels, odd; drawn from 3 on, an even size becoming the next: 5 gives 3 (⅓) and 5 (⅔)."""

    @field_validator("blur_kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("a blur kernel is odd")
        return value
