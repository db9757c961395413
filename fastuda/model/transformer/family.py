"""Families of an encoder and a head: fastuda's own files, and encoders or whole networks of others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar, cast

from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.family import Family, ImportedWeights, LoadReport, OnHub
from fastuda.model.segmenter import Segmenter
from fastuda.model.soundness import MOST_CLASSES, check_values, listed, misfits, size
from fastuda.model.transformer.lora import beside_updates, is_update
from fastuda.model.transformer.settings import TransformerTable
from fastuda.model.wrappers import unwrap
from fastuda.printable import on_one_line

T = TypeVar("T", bound=TransformerTable)

CLASSIFIER = "head.classify.weight"
ATTENTION = "two_scales.attention."
_HEADS = ("head.", ATTENTION)
_LORA = ("lora", "lora_alpha")


@dataclass(frozen=True, kw_only=True)
class EncoderWeights(ImportedWeights):
    """What a file of others holds: an encoder, or one and a head."""

    told: dict[str, object]
    """Fields of the family's table that its tensors tell."""


@dataclass(frozen=True, kw_only=True)
class Translated:
    """The tensors of a file of others under fastuda's names: plain numbers, not yet held against a network."""

    state: dict[str, Tensor]
    told: dict[str, object]
    origin: str
    dropped: dict[str, str] = field(default_factory=dict)


class TransformerFamily(Family[T]):
    """Takes fastuda's own files and what `translated` knows."""

    told_by_shapes: ClassVar[tuple[str, ...]] = ("variant",)
    """Fields in which a file and the recipe have to agree."""
    keys_of_others: ClassVar[str]
    """Whose files it takes beside its own, and the keys that they begin with; for a message."""

    @abstractmethod
    def translated(self, content: Mapping[object, object], settings: T | None) -> Translated | None:
        """The tensors of a file of others; None where its keys are nobody's that it knows.

        Raises FastudaError, without the file, for a network of that kind that fastuda does not have.
        """

    def interpret(
        self, content: Mapping[object, object], metadata: Mapping[str, str], settings: T | None
    ) -> ImportedWeights:
        if "model" in metadata:
            return super().interpret(content, metadata, settings)
        found = self.translated(content, settings)
        if found is None:
            shown = on_one_line(", ".join(sorted(unwrap(content)[0])[:3]) or "no tensors at all", 200)
            raise FastudaError(
                f"it has no header of fastuda's, and its keys ({shown}) are none that {self.kind} takes of others: "
                f"{self.keys_of_others}"
            )
        num_classes = _classes_of(found.state)
        table = self._described({"kind": self.kind, **found.told})
        wanted = {key: value.shape for key, value in self._blank(table, num_classes or 1).state_dict().items()}
        if num_classes is None:
            wanted = {key: shape for key, shape in wanted.items() if key.startswith("backbone.")}
        if problems := misfits(found.state, wanted):
            what = ", ".join(f"{name} = {value}" for name, value in found.told.items())
            raise FastudaError(f"{len(problems)} keys do not fit {self.kind} of {what}: {listed(problems)}")
        check_values(found.state)
        return EncoderWeights(
            state=found.state, origin=found.origin, input="rgb-imagenet", num_classes=num_classes,
            dropped=found.dropped, told=found.told,
        )  # fmt: skip

    def settings_of(self, imported: ImportedWeights) -> T:
        if not imported.has_heads:
            raise FastudaError("this file is an encoder without a classifier; it cannot predict")
        if isinstance(imported, EncoderWeights):
            return self._described({"kind": self.kind, **imported.told})
        return super().settings_of(imported)

    def adopt(self, settings: T, imported: ImportedWeights) -> T:
        """Of an encoder the input convention holds, of a whole network its heads too, and updates that it has."""
        if not imported.has_heads:
            return settings.model_copy(update={"input": imported.input})
        own = self.settings_of(imported)
        fields = [name for name in settings.set_by_weights if own.lora or name not in _LORA]
        return settings.model_copy(update=own.model_dump(include=set(fields)))

    def load(self, model: Segmenter, imported: ImportedWeights, path: Path) -> LoadReport:
        settings = cast(T, model.settings)
        found = imported.told if isinstance(imported, EncoderWeights) else dict(self.settings_of(imported))
        for name in self.told_by_shapes:
            if found[name] != (asked := getattr(settings, name)):
                value = str(found[name]).lower()
                raise FastudaError(
                    f"{path}: it holds {self.kind} of {name} = {value}, the recipe wants {str(asked).lower()}: "
                    f"--set model.{name}={value}"
                )
        if imported.has_heads and imported.num_classes != model.num_classes:
            raise FastudaError(
                f"{path}: its classifier knows {imported.num_classes} classes, the recipe {model.num_classes}: "
                "choose the classes it was trained on"
            )
        wanted = {key: value.shape for key, value in model.state_dict().items()}
        state = {beside_updates(key, wanted): value for key, value in imported.state.items()}
        fresh = tuple(
            key
            for key in wanted
            if key not in state and (is_update(key) or (not imported.has_heads and key.startswith(_HEADS)))
        )
        if problems := misfits(state, {key: shape for key, shape in wanted.items() if key not in fresh}):
            raise FastudaError(f"{path}: {len(problems)} keys do not fit the recipe's network: {listed(problems)}")
        model.load_state_dict(state, strict=False)
        return LoadReport(len(state), imported.dropped, fresh)

    @abstractmethod
    def repository(self, settings: T) -> str | None:
        """What Hugging Face's hub calls the weights of the word `model.weights`; None where it is no such word."""

    def pretrained(self, settings: T) -> OnHub | None:
        name = self.repository(settings)
        return None if name is None else OnHub(name)


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    """Classes of the classifier, where there is one; FastudaError out of 1..255."""
    if CLASSIFIER not in state:
        return None
    weight = state[CLASSIFIER]
    if weight.ndim != 4 or not 1 <= weight.shape[0] <= MOST_CLASSES:
        raise FastudaError(f"its classifier is {size(weight)}, and should be N×M×1×1 with N from 1 to {MOST_CLASSES}")
    return weight.shape[0]
