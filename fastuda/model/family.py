"""A family of networks: how one is built from its recipe table, and whose weights it takes."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Generic, TypeVar, cast

import torch
from pydantic import ValidationError
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.model.segmenter import Segmenter
from fastuda.model.soundness import MOST_CLASSES, check_kinds, check_values, listed, misfits
from fastuda.printable import on_one_line
from fastuda.recipe.model import InputConvention, Model

T = TypeVar("T", bound=Model)


@dataclass(frozen=True, kw_only=True)
class ImportedWeights:
    """What a weights file holds, under the names of its family's network, and what it says of that network."""

    state: dict[str, Tensor]
    """Tensors on the CPU under the network's keys."""
    origin: str
    """Whose file it is: `fastuda`, or what the family calls those of others that it knows."""
    input: InputConvention
    """The input the weights were trained on (protocol row 20)."""
    num_classes: int | None
    """Outputs of the classifier; None when the file brings none."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Keys of the file that were left out, and why."""
    metadata: dict[str, str] = field(default_factory=dict)
    """The header of a safetensors file."""

    @property
    def has_heads(self) -> bool:
        """Whether the file brings its classifier along."""
        return self.num_classes is not None


@dataclass(frozen=True)
class Published:
    """Weights that lie somewhere for everybody."""

    url: str
    """http, https or file; in the cache the file has the name that its path ends with."""
    sha256: str | None = None
    """Hex digits of its SHA-256, or their beginning; None where the file name has them (`resnet50-0676ba61.pth`)."""


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """Weights inside an ordinary package, which an extra of fastuda's installs."""

    distribution: str
    """What pip calls it."""
    version: str
    """The one whose file it is."""
    package: str
    """Its import package, at the top; never imported."""
    file: str
    """Below the package's folder."""
    sha256: str
    """All hex digits of the file's SHA-256."""
    extra: str = "small"
    """Which of fastuda's extras has it."""


@dataclass(frozen=True)
class OnHub:
    """Weights in a repository on Hugging Face's hub."""

    repository: str
    """ORG/NAME."""


@dataclass(frozen=True)
class LoadReport:
    """What loading weights into a network did."""

    matched: int
    """Tensors copied into the model."""
    dropped: dict[str, str]
    """Keys of the file that were left out, and why."""
    fresh: tuple[str, ...]
    """Keys of the heads that kept their random start, since this kind of file has none."""
    differences: tuple[str, ...] = ()
    """Conventions in which the pretrained backbone's network and the model differ, for the log."""


class Family(ABC, Generic[T]):
    """All that a kind of network has of its own, beside the network; in `fastuda/model/FAMILY/family.py` as `FAMILY`.

    What is written here holds for a network whose only weights are fastuda's own files; a family that takes those
    of others says which it `recognises` and how they are interpreted and loaded.
    """

    table: ClassVar[type[Model]]

    @property
    def kind(self) -> str:
        """What recipes and headers call it."""
        return str(self.table.model_fields["kind"].default)

    @abstractmethod
    def build(self, settings: T, num_classes: int) -> Segmenter:
        """The network with random weights, on the CPU, from torch's global generator."""

    def recognises(self, keys: Collection[str]) -> bool:
        """Whether a file without a header of fastuda's is this family's, by the keys of its tensors, unwrapped."""
        return False

    def interpret(
        self, content: Mapping[object, object], metadata: Mapping[str, str], settings: T | None
    ) -> ImportedWeights:
        """What the `content` of a weights file is; `settings` are the recipe's, None when nobody asked for a network.

        Raises FastudaError, without naming the file, for what cannot be loaded.
        """
        header = self._header(metadata)
        num_classes = header.pop("num_classes", None)
        if not isinstance(num_classes, int) or not 1 <= num_classes <= MOST_CLASSES:
            raise FastudaError(f"its header names no number of classes from 1 to {MOST_CLASSES} (metadata `model`)")
        own = self._described(header)
        state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        wanted = self._blank(own, num_classes).state_dict()
        check_kinds(state, wanted)
        if problems := misfits(state, {key: value.shape for key, value in wanted.items()}):
            raise FastudaError(f"{len(problems)} keys do not fit the network of its header: {listed(problems)}")
        check_values(state)
        return ImportedWeights(
            state=state, origin="fastuda", input=own.input, num_classes=num_classes, metadata=dict(metadata)
        )

    def settings_of(self, imported: ImportedWeights) -> T:
        """The table of the network that a file holds, classifier and all.

        Raises FastudaError, without naming the file, for a backbone alone.
        """
        header = self._header(imported.metadata)
        header.pop("num_classes", None)
        return self._described(header)

    def adopt(self, settings: T, imported: ImportedWeights) -> T:
        """The recipe's settings with the file's own conventions where those must hold."""
        own = self.settings_of(imported).model_dump(include=set(self.table.set_by_weights))
        return settings.model_copy(update=own)

    def load(self, model: Segmenter, imported: ImportedWeights, path: Path) -> LoadReport:
        """Copy imported weights into the model, in place; `path` is the file's, for messages.

        Raises FastudaError, the model untouched, when they are another network's.
        """
        if imported.num_classes != model.num_classes:
            raise FastudaError(
                f"{path}: its classifier knows {imported.num_classes} classes, the recipe {model.num_classes}: "
                "choose the classes it was trained on"
            )
        problems = misfits(imported.state, {key: value.shape for key, value in model.state_dict().items()})
        if problems:
            raise FastudaError(f"{path}: {len(problems)} keys do not fit the recipe's network: {listed(problems)}")
        model.load_state_dict(imported.state, strict=False)
        return LoadReport(len(imported.state), imported.dropped, ())

    def pretrained(self, settings: T) -> Published | Packaged | OnHub | None:
        """What the word `model.weights` stands for; None where it is no word of this family's.

        Raises FastudaError for weights that go with other settings than these.
        """
        return None

    def _blank(self, settings: T, num_classes: int) -> Segmenter:
        """Such a network, of whose tensors shapes and types alone are wanted."""
        try:
            with torch.device("meta"):  # so that a stranger's header costs no memory
                return self.build(settings, num_classes)
        except RuntimeError:  # a constructor that reads numbers out of its tensors
            with torch.random.fork_rng([]):
                return self.build(settings, num_classes)

    def _header(self, metadata: Mapping[str, str]) -> dict[str, object]:
        try:
            header = json.loads(metadata["model"])
        except (KeyError, ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            raise FastudaError("its header does not say which network it holds (metadata `model`); export it again")
        return header

    def _described(self, header: Mapping[str, object]) -> T:
        try:
            return cast(T, self.table.model_validate({**header, "weights": "random"}))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = on_one_line(".".join(map(str, problem["loc"])), 100)
            raise FastudaError(
                f"its header describes no {self.kind} (metadata `model`: {where}: {problem['msg']})"
            ) from error


def families() -> dict[str, Family[Model]]:
    """All families, by kind."""
    return {kind: family_of(kind) for kind in Model.kinds()}


@cache
def family_of(kind: str) -> Family[Model]:
    """The family of a kind that recipes know."""
    package = Model.kinds()[kind].__module__.rpartition(".")[0]
    family: Family[Model] = import_module(f"{package}.family").FAMILY
    return family


def family_of_file(keys: Collection[str], metadata: Mapping[str, str], settings: Model | None) -> Family[Model]:
    """Whose file it is: by its header, by its keys, or, where neither tells, as the recipe says or the usual family.

    Raises FastudaError, without naming the file, when the recipe wants another.
    """
    named = _kind_of(metadata)
    if named is not None and named not in Model.kinds():
        raise FastudaError(f"it holds a network of the kind {on_one_line(named, 60)}, which this fastuda does not have")
    kind = named or next((kind for kind, one in families().items() if one.recognises(keys)), None)
    if kind is not None and settings is not None and settings.kind != kind:
        raise FastudaError(
            f"it holds a network of the kind {kind}, the recipe wants {settings.kind}: --set model.kind={kind}"
        )
    return family_of(kind or (Model.usual if settings is None else settings.kind))


def _kind_of(metadata: Mapping[str, str]) -> str | None:
    """The kind that a header names: the usual one where it describes a network without naming any; None without one."""
    try:
        header = json.loads(metadata["model"])
    except (KeyError, ValueError, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    kind = header.get("kind", Model.usual)
    return kind if isinstance(kind, str) else None
