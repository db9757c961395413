"""Unsupervised domain adaptation for semantic segmentation: the EHTDI method, made fast.

    import fastuda

    results = fastuda.train("gta2cs", "runs/mine", source="/data/gta5", target="/data/cityscapes")
    model = fastuda.load("runs/mine")
    labels = model.predict("photo.jpg")
    scores = fastuda.evaluate(model)

What the user can mend is raised as `fastuda.FastudaError`; `fastuda.errors` has its kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastuda import errors
from fastuda.errors import FastudaError
from fastuda.version import __version__

__all__ = ["FastudaError", "Model", "Recipe", "__version__", "errors", "evaluate", "load", "train"]

if TYPE_CHECKING:
    from fastuda.evaluation.evaluate import evaluate
    from fastuda.evaluation.load import load
    from fastuda.evaluation.model import Model
    from fastuda.recipe import Recipe
    from fastuda.training.start import train
else:
    # A name's module, and torch with it, is imported when the name is first asked for.
    _PLACES = {
        "Model": "fastuda.evaluation.model",
        "Recipe": "fastuda.recipe",
        "evaluate": "fastuda.evaluation.evaluate",
        "load": "fastuda.evaluation.load",
        "train": "fastuda.training.start",
    }

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = found = getattr(import_module(_PLACES[name]), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
