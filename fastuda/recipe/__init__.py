"""What a run is: every setting, its type, its range and its default, in one place.

The defaults are the paper's GTA5 → Cityscapes run; "protocol row N" in the field docstrings refers
to the rows of the table in `method/PROTOCOL.md`.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from fastuda.recipe.data import Classes, Data, Demo, Domain, Jitter, Views
from fastuda.recipe.method import Auxiliary, Contrast, Edge, Htcm, Method, Mix
from fastuda.recipe.section import Section
from fastuda.recipe.training import Evaluation, Model, Optimizer, Runtime, Train, Warmup

__all__ = [
    "Auxiliary", "Classes", "Contrast", "Data", "Demo", "Domain", "Edge", "Evaluation", "Htcm", "Jitter", "Method",
    "Mix", "Model", "Optimizer", "Recipe", "Runtime", "Section", "Train", "Views", "Warmup",
]  # fmt: skip


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
        mixed_by = {"st": ("mix", self.mix.enabled), "hts": ("htcm", self.htcm.enabled)}
        section, enabled = mixed_by[self.contrast.on]
        if not enabled and (self.contrast.pixel or self.contrast.prototype):
            raise ValueError(
                f'contrast.on = "{self.contrast.on}" needs {section}.enabled; '
                "without it set contrast.pixel = false and contrast.prototype = false"
            )
        if self.edge.enabled and not (self.mix.enabled and self.htcm.enabled):
            raise ValueError("edge.enabled needs mix.enabled and htcm.enabled")
        return self
