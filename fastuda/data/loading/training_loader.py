"""Endless training batches of one domain, from any iteration on."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.data.loading.failures import Failures, substitute
from fastuda.data.loading.pipeline import (
    device_id_of,
    input_names,
    output_names,
    run_pipeline,
    training_graph,
    undecodable,
)
from fastuda.data.loading.rare_classes import Box, RareClasses
from fastuda.data.loading.sampling import Augmentation, DomainName, Schedule, Shards, draw_augmentation, draw_box
from fastuda.data.packing.joined import Joined
from fastuda.data.packing.pack import Packed
from fastuda.data.packing.sharded import Sharded
from fastuda.data.reading.faults import SampleError
from fastuda.recipe import Recipe

log = logging.getLogger(__name__)


class TrainingLoader:
    """Endless batches of one domain, starting at any iteration.

    `next(loader)` gives the DomainBatch of the next iteration on `device`. Sharded by rank.

    A sample whose packed file is damaged and cannot be made anew, or that DALI cannot decode, ends it with a
    FastudaError; under `data.on_error = "skip"` the next sample takes its place, from then on and with the
    augmentation of its position, and every other place stays as it is. `failed` are the samples that had failed when a
    resumed run stopped; with them it goes on as if it had never stopped. `adapts` is whether the batches are the
    adaptation's, which `sampling` is about.
    """

    def __init__(
        self,
        packed: Packed,
        domain: DomainName,
        recipe: Recipe,
        device: torch.device,
        *,
        start_iteration: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        failed: Collection[int] = (),
        adapts: bool = True,
    ) -> None:
        drawn_by_class = domain == "source" and adapts and recipe.sampling.rare_classes
        self.packed = packed.single_files() if drawn_by_class else packed
        """What it reads; an image that shows a class may lie in any shard, so those are read file by file."""
        self._recipe = recipe
        self._device = device
        self._iteration = start_iteration
        self.failures = Failures(packed, recipe.data, failed)
        """Which samples are replaced, and why each is."""
        self.schedule = _schedule(packed, domain, recipe, rank, num_ranks, adapts=adapts)
        if self.schedule.rare is not None:
            log.info("source images are drawn by class: %s", self.schedule.rare.told(recipe.classes.build().names))
        self._domain: DomainName = domain
        self._fields = input_names(recipe.views, labelled=domain == "source")
        self._begin()

    @property
    def failed(self) -> list[int]:
        """Numbers of the samples that failed so far, ascending: what a resumed run's `failed` has to be."""
        return self.failures.indices

    def __iter__(self) -> Iterator[DomainBatch]:
        return self

    def __next__(self) -> DomainBatch:
        *images, boxes, class_keys = self._outputs()
        named = dict(zip(output_names(self._recipe.views, labelled="label" in self._fields), images, strict=True))
        batch = DomainBatch(
            view=named.get("view"),
            view_label=_flat(named.get("view_label")),
            weak=named["weak"],
            strong=named["strong"],
            label=_flat(named.get("label")),
            boxes=boxes,
            class_keys=class_keys,
            names=[self.packed.names[i] for i in self._feed.fed.pop(self._iteration)],
        )
        self._iteration += 1
        return batch

    @staticmethod
    def names_at(
        packed: Packed,
        domain: DomainName,
        recipe: Recipe,
        iteration: int,
        failed: Collection[int] = (),
        *,
        rank: int = 0,
        num_ranks: int = 1,
        adapts: bool = True,
    ) -> list[str]:
        """Names of a rank's samples of any iteration, past or to come, with those in the places of `failed` ones."""
        schedule = _schedule(packed, domain, recipe, rank, num_ranks, adapts=adapts)
        return [packed.names[substitute(i, failed, len(packed))] for i in schedule.samples(iteration)]

    def _begin(self) -> None:
        """A pipeline from the next iteration on."""
        self._feed = _TrainingFeed(
            self.packed,
            self._domain,
            self._recipe,
            self.schedule,
            self._fields,
            self._iteration,
            len(self._recipe.classes.build()),
            self.failures,
        )
        self._pipeline = training_graph(
            batch_size=self._recipe.train.batch_size,
            num_threads=self._recipe.runtime.loader_threads,
            device_id=device_id_of(self._device),
            exec_dynamic=True,
            prefetch_queue_depth=2,
            feed=self._feed,
            fields=self._fields,
            packed_format=self.packed.format,
            packed_size=self.packed.size,
            views=self._recipe.views,
        )
        self._pipeline.build()

    def _outputs(self) -> list[Tensor]:
        while True:
            try:
                return run_pipeline(self._pipeline, self._device)
            except RuntimeError:
                in_flight = {index for samples in self._feed.fed.values() for index in samples}
                refused = undecodable(self.packed, in_flight, labels="label" in self._fields, device=self._device)
                if not refused:
                    raise
                for index, error in refused.items():
                    self.failures.add(index, error)
                self._begin()  # a pipeline that has raised is of no more use; each one draws the same batches


@dataclass(frozen=True)
class _TrainingFeed:
    """Files and random draws of each batch, for DALI; apart from the loader, which dies when it is dropped."""

    packed: Packed
    domain: DomainName
    recipe: Recipe
    schedule: Schedule
    fields: list[str]
    start: int
    num_classes: int
    failures: Failures
    fed: dict[int, list[int]] = field(default_factory=dict)
    """Iteration → the samples that were read for it, until its batch is handed over."""

    def __call__(self, index: int) -> tuple[list[NDArray[Any]], ...]:
        iteration = self.start + index
        samples, columns = self._files(iteration)
        for place, position in enumerate(self.schedule.positions(iteration)):
            draw = draw_augmentation(
                self.recipe.seed,
                self.domain,
                position,
                self.packed.size,
                self.num_classes,
                self.recipe.views,
                self.recipe.jitter,
            )
            if self.schedule.rare is not None and not self.schedule.is_joined(position):
                label = self.packed.decoded_label(samples[place], columns["label"][place])
                draw = replace(draw, box=self._rare_crop(position, draw, label))
            for name, value in _graph_inputs(draw).items():
                columns.setdefault(name, []).append(value)
        self.fed[iteration] = samples
        return tuple(columns[name] for name in self.fields)

    def _rare_crop(self, position: int, draw: Augmentation, label: NDArray[np.uint8]) -> Box:
        assert self.schedule.rare is not None
        size, views = self.packed.size, self.recipe.views
        return self.schedule.rare.crop(
            position, draw.box, bool(draw.flip), label, lambda rng: draw_box(rng, size, views)
        )

    def _files(self, iteration: int) -> tuple[list[int], dict[str, list[NDArray[Any]]]]:
        """The samples of a batch, those that failed replaced, and their files by field."""
        samples: list[int] = []
        columns: dict[str, list[NDArray[Any]]] = {}
        self.packed.read_ahead(self.schedule.soon(iteration))
        for meant in self.schedule.samples(iteration):
            sample, files = self._read(meant)
            samples.append(sample)
            for name, file in files.items():
                columns.setdefault(name, []).append(file)
        return samples, columns

    def _read(self, meant: int) -> tuple[int, dict[str, NDArray[Any]]]:
        while True:
            sample = self.failures.substitute(meant)
            try:
                files = {"image": self.packed.image_bytes(sample)}
                if "label" in self.fields:
                    files["label"] = self.packed.label_bytes(sample)
                return sample, files
            except SampleError as error:
                self.failures.add(sample, error)


def _shards(packed: Packed) -> Shards | None:
    return Shards(packed.layout.members, packed.mixed) if isinstance(packed, Sharded) else None


def _schedule(
    packed: Packed, domain: DomainName, recipe: Recipe, rank: int = 0, num_ranks: int = 1, *, adapts: bool
) -> Schedule:
    """The order in which a stage's loader of a domain reads a pack."""
    first, second = (packed.first, packed.second) if isinstance(packed, Joined) else (packed, None)
    num_joined = 0 if second is None else len(second)
    num_samples, rare = len(packed) - num_joined, None
    if domain == "source" and adapts and recipe.sampling.rare_classes:
        rare = RareClasses.of(packed.label_pixels()[:num_samples], recipe.sampling, recipe.seed)
    return Schedule(
        num_samples, recipe.train.batch_size, recipe.seed, domain, rank, num_ranks, num_joined=num_joined, rare=rare,
        shards=None if rare is not None else _shards(first), joined_shards=None if second is None else _shards(second),
    )  # fmt: skip


def _graph_inputs(draw: Augmentation) -> dict[str, NDArray[Any]]:
    """One sample's augmentation under the names of the graph's inputs."""
    return {
        "flip": np.array(draw.flip, np.int32),
        "sigma": np.array(draw.blur[0], np.float32),
        "window": np.array(draw.blur[1], np.int32),
        "box": np.array(draw.box, np.float32),
        "colour": np.array(draw.colour, np.float32),
        "strong_sigma": np.array(draw.strong_blur[0], np.float32),
        "strong_window": np.array(draw.strong_blur[1], np.int32),
        "view_colour": np.array(draw.view_colour, np.float32),
        "class_keys": draw.class_keys,
    }


def _flat(label: Tensor | None) -> Tensor | None:
    return None if label is None else label.squeeze(-1)
