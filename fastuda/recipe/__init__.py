"""What a run is: every setting, its type, its range and its default, in one place.

The defaults are the paper's GTA5 → Cityscapes run; "protocol row N" in the field docstrings refers
to the rows of the table in `method/PROTOCOL.md`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from pydantic import Field, SerializeAsAny, model_validator

from fastuda.recipe import agreement
from fastuda.recipe.data import Classes, Data, Demo, Domain, Jitter, Sampling, Views
from fastuda.recipe.distributed import Distributed
from fastuda.recipe.method import Auxiliary, Contrast, Edge, Htcm, Method, Mix, SourceMix
from fastuda.recipe.model import Model
from fastuda.recipe.optimizer import AdamW, Optimizer, Sgd
from fastuda.recipe.parts import SWITCHES
from fastuda.recipe.quality import Quality
from fastuda.recipe.section import Section, Seed
from fastuda.recipe.term import Terms
from fastuda.recipe.training import Evaluation, Runtime, Train, Warmup

__all__ = [
    "AdamW", "Auxiliary", "Classes", "Contrast", "Data", "Demo", "Distributed", "Domain", "Edge", "Evaluation", "Htcm",
    "Jitter", "Method", "Mix", "Model", "Optimizer", "Quality", "Recipe", "Runtime", "Sampling", "Section", "Sgd",
    "SourceMix", "Train", "Views", "Warmup",
]  # fmt: skip


class Recipe(Section):
    """One run, whole: a table of fields, each of its type and in its range, none of which changes once it is made.

    `Recipe.load` makes one; `fastuda recipes NAME` shows every field and what it means.
    """

    description: str = ""
    """One line: what this recipe is."""
    seed: Seed = 0
    """Seed of initialisation, shuffling, augmentation and mixing."""
    classes: Classes = Classes()
    """Which classes are trained."""
    source: Domain
    """The labelled data set."""
    target: Domain
    """The data set to adapt to; its training labels are never read, but for `train.labels = "target"`, and those that
    `target.labelled` names."""
    demo: Demo | None = None
    """How many images to draw when no folders are given; the demo alone has it."""
    data: Data = Data()
    """The cache and the packed format."""
    views: Views = Views()
    """What the network sees of an image."""
    sampling: Sampling = Sampling()
    """Which source images are drawn."""
    jitter: Jitter = Jitter()
    """The strong view's colours."""
    model: SerializeAsAny[Model] = Field(default_factory=lambda: Model.model_validate({}))
    """The network and its weights."""
    warmup: Warmup = Warmup()
    """The source-only stage."""
    method: Method = Method()
    """Teacher and weights of the adaptation."""
    mix: Mix = Mix()
    """CMix."""
    source_mix: SourceMix = SourceMix()
    """DSP's source-to-source paste."""
    quality: Quality = Quality()
    """What pseudo-labels count."""
    htcm: Htcm = Htcm.model_validate({})
    """HTCM."""
    contrast: Contrast = Contrast()
    """PiCL and ProCL."""
    auxiliary: Auxiliary = Auxiliary()
    """The classifier on layer3."""
    edge: Edge = Edge()
    """The edge variant."""
    terms: Terms = Field(default_factory=dict)
    """Loss terms beyond the paper's, by name."""
    train: Train = Train()
    """The adaptation stage."""
    eval: Evaluation = Evaluation()
    """How models are scored."""
    runtime: Runtime = Runtime()
    """Device-side switches."""
    distributed: Distributed = Distributed()
    """What several ranks share."""

    @property
    def parts(self) -> list[str]:
        """The method's parts that are on, and the further terms, by the names that a variant's `parts` has."""
        own = [part for part, (section, field) in SWITCHES.items() if getattr(getattr(self, section), field)]
        return [*own, *self.terms]

    @property
    def makes_pseudo_labels(self) -> bool:
        """Whether anything is trained on what the teacher says of the target."""
        views = self.mix.enabled or self.htcm.enabled or any(term.of_warmup == () for term in self.terms.values())
        return views and self.train.iterations > 0

    @property
    def trains_on_target_labels(self) -> bool:
        """Whether a stage of the run is trained on the labels of the target's training images in the source's place."""
        return self.train.labels == "target" and self.train.iterations > 0

    @property
    def has_few_labels(self) -> bool:
        """Whether labelled target images join the source's (`target.labelled`)."""
        return self.target.labelled is not None and not self.trains_on_target_labels

    @property
    def has_adapted_stage(self) -> bool:
        """Whether a run has a stage after the source-only one: trained, or of target statistics alone."""
        return self.train.iterations > 0 or self.eval.batch_norm == "target"

    @classmethod
    def load(
        cls,
        recipe: str | os.PathLike[str] | Recipe,
        *settings: str | Sequence[str],
        source: str | os.PathLike[str] | None = None,
        target: str | os.PathLike[str] | None = None,
    ) -> Recipe:
        """A recipe with some of its fields set: `Recipe.load("gta2cs+cmix", "method.tau=0.9", source="/data/gta5")`.

        `recipe` is a preset's name or the path of a TOML file, with or without `+variant`s, or another Recipe; each
        setting, or each of a list of them, is what `--set` takes, and `source` and `target` are the data sets' folders.
        Raises UsageError that names the field, and the nearest known field or name.
        """
        from fastuda.recipe.file import load_recipe, with_folders  # which knows this class

        chosen = [one for given in settings for one in ([given] if isinstance(given, str) else given)]
        return load_recipe(recipe, with_folders(chosen, source, target))

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        agreement.check(self)
        return self

    @model_validator(mode="after")
    def _room(self) -> Recipe:
        self.check_room()
        return self

    def check_room(self) -> None:
        """Raise ValueError unless the network takes every image that goes through it and leaves enough of it.

        In training that is two values a channel. To be asked again once a weights file has set what of the network.
        """
        views, model, batch = self.views, self.model, self.train.batch_size
        adapts = self.train.iterations > 0
        trained = {
            "source_size": views.whole,
            "target_size": views.whole and adapts,
            "crop_size": not views.whole or (adapts and (self.mix.enabled or self.htcm.enabled)),
        }
        for name, is_used in trained.items():
            size = getattr(views, name)
            if is_used and (reason := model.refuses(size)):
                raise ValueError(f"views.{name} = {list(size)}: {reason}")
            if is_used and batch * model.positions(size) < model.least_values:
                side = model.smallest_side(-(-model.least_values // batch))
                raise ValueError(
                    f"views.{name} = {list(size)}: too small for the network, whose BatchNorm needs two values a "
                    f"channel and sees fewer with train.batch_size = {batch}; [{side}, {side}] is enough"
                )
        for scale in self.eval.scales:
            width, height = (max(1, round(side * scale)) for side in self.eval.size)
            name, given = "eval.size", self.eval.size
            if self.eval.window is not None:
                name, given = "eval.window", self.eval.window
                width, height = min(width, given[0]), min(height, given[1])
            if reason := model.refuses((width, height)):
                at = "" if scale == 1 else f" at eval.scales = {scale:g}"
                raise ValueError(f"{name} = {list(given)}{at}: {reason}")
