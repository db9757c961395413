"""A trained model alone in a file, with the recipe that it needs and the scores that it had."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastuda.model.digest import MODEL_FORMAT
from fastuda.model.segmenter import Segmenter, described
from fastuda.model.weights import save_weights
from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe


@dataclass(frozen=True)
class ModelFile:
    """Where a model goes and what its header says; its tensors come later, from a snapshot."""

    path: Path
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, path: Path, model: Segmenter, recipe: Recipe, notes: dict[str, Any]) -> ModelFile:
        """`notes` are the scores that the model had; `recipe` travels along."""
        about = {"format": MODEL_FORMAT, "recipe": dump_recipe(recipe), "notes": json.dumps(notes)}
        return cls(path, {**described(model), **about})

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the file, whole or not at all; raises FastudaError."""
        save_weights(self.path, tensors, self.metadata)


def save_model(path: Path, model: Segmenter, recipe: Recipe, notes: dict[str, Any]) -> None:
    """A model alone, readable by `fastuda eval`, `predict` and `--init`; atomic. Raises FastudaError."""
    ModelFile.of(path, model, recipe, notes).write(model.state_dict())
