"""The packed data of a run: drawn if it is the demo, checked for skips, packed if it is not packed yet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fastuda.classes import IGNORE_INDEX
from fastuda.data.cache import cache_folder
from fastuda.data.checking.suspicion import Suspicion, class_suspicions, foreground_suspicion
from fastuda.data.loading.sampling import DomainName
from fastuda.data.packing.joined import Joined
from fastuda.data.packing.pack import Packed
from fastuda.data.packing.prepare import LabelSize, prepare
from fastuda.data.reading.listing import counted
from fastuda.data.reading.samples import Split, data_root
from fastuda.demo import DRAWING, draw_demo
from fastuda.errors import FastudaError
from fastuda.files.disk import make_folder
from fastuda.files.lock import Look, held
from fastuda.files.paths import is_folder, user_path
from fastuda.recipe import Demo, Domain, Recipe

log = logging.getLogger(__name__)

Progress = Callable[[str], Callable[[int, int], None]]
"""Given what is being done, a function to call with (done, total)."""


SplitName = Literal["source", "target", "labelled_target"]
"""A packed split that is trained on."""


@dataclass(frozen=True)
class Datasets:
    """Packed splits of one run."""

    source: Packed
    """Images and labels at `views.source_size`."""
    target: Packed
    """Images alone at `views.target_size`."""
    evaluation: Packed
    """Images at `eval.size`, labels at their own."""
    labelled_target: Packed | None = None
    """The target's training images with their labels: at `views.target_size` where `train.labels` asks for them, at
    `views.source_size` those that `target.labelled` names to join the source's."""
    viewed_evaluation: Packed | None = None
    """The evaluation images at `views.target_size`, labels at their own; where `eval.pseudo_labels` looks at them. No
    split of its own."""
    few_labels: bool = False
    """Whether the labelled target joins the source (`target.labelled`), which it else takes the place of."""

    def splits(self) -> dict[str, Packed]:
        """Each by its name."""
        named = {"source": self.source, "target": self.target, "evaluation": self.evaluation}
        return named if self.labelled_target is None else {**named, "labelled_target": self.labelled_target}

    def trained_on(self, *, adapts: bool) -> dict[DomainName, tuple[SplitName, Packed]]:
        """What each domain's loader of a stage reads.

        The labelled target joins the source in both stages, or is read in its place in the adaptation.
        """
        source: tuple[SplitName, Packed] = ("source", self.source)
        if self.labelled_target is not None and self.few_labels:
            source = ("source", Joined.of(self.source, self.labelled_target))
        elif self.labelled_target is not None and adapts:
            source = ("labelled_target", self.labelled_target)
        return {"source": source, "target": ("target", self.target)} if adapts else {"source": source}

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each split, for results.json."""
        return {name: packed.fingerprint for name, packed in self.splits().items()}

    def left_out(self) -> dict[str, dict[str, int]]:
        """What each split does not use, by reason, for results.json."""
        return {name: packed.left_out.to_json() for name, packed in self.splits().items()}


def with_demo_data(recipe: Recipe, progress: Progress, look: Look | None = None) -> Recipe:
    """The recipe with the demo's folders filled in, drawn into the cache if need be; others unchanged.

    Folders that an earlier call filled in are drawn again if the cache was deleted since, or is another now. `look` is
    called while another process that draws is waited for.
    """
    if recipe.demo is None:
        return recipe
    demo, root = recipe.demo, _demo_root(recipe, recipe.demo)
    placed = with_demo_folders(recipe)
    if placed.source.root != root / "source" and placed.target.root != root / "target":
        return recipe
    with held(make_folder(root.parent), "drawing a demo", wait=True, look=look, reading=True):
        draw_demo(
            root,
            num_source=demo.num_source,
            num_source_val=demo.num_source_val,
            num_target=demo.num_target,
            num_val=demo.num_val,
            size=demo.size,
            seed=demo.seed,
            progress=progress("Drawing two domains"),
        )
    return placed


def with_demo_folders(recipe: Recipe) -> Recipe:
    """The recipe with the demo's folders filled in, drawn or not, where none are given, or where those given lay in a
    cache that cannot be reached; others unchanged.
    """
    if recipe.demo is None:
        return recipe
    root = _demo_root(recipe, recipe.demo)
    source, target = (
        domain.model_copy(update={"root": _at_hand(domain.root, root / name)})
        for domain, name in ((recipe.source, "source"), (recipe.target, "target"))
    )
    return recipe.model_copy(update={"source": source, "target": target})


def _at_hand(given: Path | None, own: Path) -> Path:
    """The folder that a recipe names, or this cache's `own` for the same drawing in a cache that cannot be reached."""
    if given is None:
        return own
    is_elsewhere = given.parts[-3:] == own.parts[-3:] and not is_folder(user_path(given))
    return own if is_elsewhere else given


def _demo_root(recipe: Recipe, demo: Demo) -> Path:
    counts = f"{demo.num_source}-{demo.num_source_val}-{demo.num_target}-{demo.num_val}"
    name = f"{demo.size[0]}x{demo.size[1]}-{counts}-seed{demo.seed}-drawing{DRAWING}"
    return cache_folder(recipe.data) / "demo" / name


def prepare_all(recipe: Recipe, progress: Progress, look: Look | None = None) -> Datasets:
    """Pack, or find packed, the splits that a run reads; `look` and what is raised are as `prepare` has them.

    Labels of the target's training images are looked for where `train.labels` or `target.labelled` asks for them, and
    nowhere else; those that the latter does not name are not opened.
    """
    source_size = recipe.views.source_size
    target_size = recipe.views.target_size
    labelled = None
    if recipe.trains_on_target_labels or recipe.has_few_labels:
        what, size = "labelled target training", source_size if recipe.has_few_labels else target_size
        domain = recipe.target
        if domain.labelled is not None:
            domain = domain.model_copy(update={"listing": domain.labelled})
        labelled = _prepare(what, domain, "train", size, "resized", recipe, progress, look)
        _look_at_labels(what, labelled, domain, recipe)
    data = Datasets(
        source=_prepare("source training", recipe.source, "train", source_size, "resized", recipe, progress, look),
        target=_prepare("target training", recipe.target, "train", target_size, "none", recipe, progress, look),
        evaluation=prepare_evaluation(recipe, recipe.target, progress, look),
        labelled_target=labelled,
        viewed_evaluation=_viewed(recipe, progress, look),
        few_labels=recipe.has_few_labels,
    )
    _look_at_labels("source training", data.source, recipe.source, recipe)
    return data


def _viewed(recipe: Recipe, progress: Progress, look: Look | None) -> Packed | None:
    if not recipe.eval.pseudo_labels or not recipe.has_adapted_stage:
        return None
    return _prepare("evaluation", recipe.target, "val", recipe.views.target_size, "own", recipe, progress, look)


def prepare_evaluation(recipe: Recipe, domain: Domain, progress: Progress, look: Look | None = None) -> Packed:
    """The labelled evaluation split of `domain` at `eval.size`, labels at their own size (protocol row 23)."""
    packed = _prepare("evaluation", domain, "val", recipe.eval.size, "own", recipe, progress, look)
    _look_at_labels("evaluation", packed, domain, recipe)
    return packed


def _prepare(
    what: str,
    domain: Domain,
    split: Split,
    size: tuple[int, int],
    labels: LabelSize,
    recipe: Recipe,
    progress: Progress,
    look: Look | None,
) -> Packed:
    packed = prepare(
        domain,
        split,
        size=size,
        labels=labels,
        classes=recipe.classes.build(),
        data=recipe.data,
        progress=progress(f"Packing {what} images"),
        look=look,
    )
    left_out = f"; not used: {packed.left_out}" if str(packed.left_out) else ""
    log.info("%s: %s%s", what, counted(len(packed), "sample"), left_out)
    return packed


def _look_at_labels(what: str, packed: Packed, domain: Domain, recipe: Recipe) -> None:
    """Say what makes a training pointless before it begins; FastudaError for labels without a labelled pixel."""
    classes = recipe.classes.build()
    pixels = packed.label_pixels()
    totals = np.zeros(256, np.int64)
    totals[: len(classes)], totals[IGNORE_INDEX] = pixels.sum(0)[:-1], pixels[:, -1].sum()
    if not totals[: len(classes)].any():
        raise FastudaError(
            f"{data_root(domain)}: no pixel of the {what} labels has a class of the recipe; check the label ids "
            "(`fastuda data check` counts values and classes)"
        )
    masks = _masks(packed, pixels) if domain.holds_train_ids and len(classes) > 1 else []
    for suspicion in [*class_suspicions(totals, classes), *masks]:
        log.warning("%s labels: %s", what, suspicion.detail)


def _masks(packed: Packed, pixels: NDArray[np.int64]) -> list[Suspicion]:
    counts = {
        name: {value: int(count) for value, count in ((0, row[0]), (IGNORE_INDEX, row[-1])) if count}
        for name, row in zip(packed.names, pixels, strict=True)
        if not row[1:-1].any()
    }
    found = foreground_suspicion(counts, ignored=True)
    return found if 2 * len(counts) > len(packed) else []
