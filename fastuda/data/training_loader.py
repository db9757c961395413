"""Endless training batches of one domain, from any iteration on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastuda.data.batch import DomainBatch
from fastuda.data.pack import Packed
from fastuda.data.pipeline import device_id_of, input_names, output_names, run_pipeline, training_graph
from fastuda.data.sampling import Augmentation, DomainName, Schedule, draw_augmentation
from fastuda.recipe import Recipe


class TrainingLoader:
    """Endless batches of one domain, starting at any iteration.

    `next(loader)` gives the DomainBatch of the next iteration on `device`. Sharded by rank.
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
    ) -> None:
        self._packed = packed
        self._recipe = recipe
        self._device = device
        self._iteration = start_iteration
        self.schedule = Schedule(len(packed.names), recipe.train.batch_size, recipe.seed, domain, rank, num_ranks)
        self._fields = input_names(recipe.views, labelled=domain == "source")
        self._pipeline = training_graph(
            batch_size=recipe.train.batch_size,
            num_threads=recipe.runtime.loader_threads,
            device_id=device_id_of(device),
            exec_dynamic=True,
            prefetch_queue_depth=2,
            feed=_TrainingFeed(
                packed, domain, recipe, self.schedule, self._fields, start_iteration, len(recipe.classes.build())
            ),
            fields=self._fields,
            packed_format=packed.format,
            packed_size=packed.size,
            views=recipe.views,
        )
        self._pipeline.build()

    def __iter__(self) -> Iterator[DomainBatch]:
        return self

    def __next__(self) -> DomainBatch:
        *images, boxes, class_keys = run_pipeline(self._pipeline, self._device)
        named = dict(zip(output_names(self._recipe.views, labelled="label" in self._fields), images, strict=True))
        batch = DomainBatch(
            view=named.get("view"),
            view_label=_flat(named.get("view_label")),
            weak=named["weak"],
            strong=named["strong"],
            label=_flat(named.get("label")),
            boxes=boxes,
            class_keys=class_keys,
            names=[self._packed.names[i] for i in self.schedule.samples(self._iteration)],
        )
        self._iteration += 1
        return batch

    @staticmethod
    def names_at(packed: Packed, domain: DomainName, recipe: Recipe, iteration: int) -> list[str]:
        """Names of the samples of any iteration, past or to come."""
        schedule = Schedule(len(packed), recipe.train.batch_size, recipe.seed, domain)
        return [packed.names[i] for i in schedule.samples(iteration)]


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

    def __call__(self, index: int) -> tuple[list[NDArray[Any]], ...]:
        iteration = self.start + index
        samples = self.schedule.samples(iteration)
        columns: dict[str, list[NDArray[Any]]] = {"image": [self.packed.image_bytes(i) for i in samples]}
        if "label" in self.fields:
            columns["label"] = [self.packed.label_bytes(i) for i in samples]
        for position in self.schedule.positions(iteration):
            draw = draw_augmentation(
                self.recipe.seed,
                self.domain,
                position,
                self.packed.size,
                self.num_classes,
                self.recipe.views,
                self.recipe.jitter,
            )
            for name, value in _graph_inputs(draw).items():
                columns.setdefault(name, []).append(value)
        return tuple(columns[name] for name in self.fields)


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
