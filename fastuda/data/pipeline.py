"""The DALI graphs that turn packed files into batches: source training, target training, evaluation.

One graph serves CPU (`device_id=None`) and GPU. Every random choice enters as data, drawn in
`sampling.py`, so the graphs themselves are deterministic and hold no state worth saving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, pipeline_def, types
from torch import Tensor

from fastuda.data.batch import DomainBatch, EvaluationBatch
from fastuda.data.colour import jitter_colours
from fastuda.data.prepare import Packed
from fastuda.data.sampling import Augmentation, DomainName, Schedule, draw_augmentation
from fastuda.recipe import Recipe, Views

Node = Any


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
        self._domain: DomainName = domain
        self._recipe = recipe
        self._device = device
        self._num_classes = len(recipe.classes.build())
        self._start = start_iteration
        self._iteration = start_iteration
        self.schedule = Schedule(len(packed.names), recipe.train.batch_size, recipe.seed, domain, rank, num_ranks)
        self._pipeline = _training_graph(
            batch_size=recipe.train.batch_size,
            num_threads=recipe.runtime.loader_threads,
            device_id=_device_id(device),
            exec_dynamic=True,
            prefetch_queue_depth=2,
            feed=self._feed,
            labelled=domain == "source",
            packed_format=packed.format,
            packed_size=packed.size,
            views=recipe.views,
        )
        self._pipeline.build()

    def __iter__(self) -> Iterator[DomainBatch]:
        return self

    def __next__(self) -> DomainBatch:
        outputs = [torch.from_dlpack(output.as_tensor()) for output in self._pipeline.run()]
        *images, boxes, class_keys = (output.to(self._device) for output in outputs)
        named = dict(zip(_output_names(self._recipe.views, self._domain == "source"), images, strict=True))
        batch = DomainBatch(
            view=named.get("view"),
            view_label=_flat(named.get("view_label")),
            weak=named["weak"],
            strong=named["strong"],
            label=_flat(named.get("label")),
            boxes=boxes,
            class_keys=class_keys,
            names=self.names(self._iteration),
        )
        self._iteration += 1
        return batch

    def names(self, iteration: int) -> list[str]:
        """Names of the samples of any iteration, past or to come."""
        return [self._packed.names[i] for i in self.schedule.samples(iteration)]

    def _feed(self, index: int) -> tuple[list[NDArray[Any]], ...]:
        iteration = self._start + index
        samples = self.schedule.samples(iteration)
        recipe = self._recipe
        draws = [
            draw_augmentation(
                recipe.seed, self._domain, position, self._packed.size, self._num_classes, recipe.views, recipe.jitter
            )
            for position in self.schedule.positions(iteration)
        ]
        images = [self._packed.image_bytes(i) for i in samples]
        labels = [self._packed.label_bytes(i) for i in samples] if self._domain == "source" else images
        return images, labels, *_as_arrays(draws)


class EvaluationLoader:
    """One pass over a packed, labelled split, in order, in batches on `device`."""

    def __init__(self, packed: Packed, batch_size: int, num_threads: int, device: torch.device) -> None:
        self._packed = packed
        self._batch_size = batch_size
        self._num_threads = num_threads
        self._device = device

    def __len__(self) -> int:
        return len(self._packed.names)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        names = self._packed.names
        starts = range(0, len(names), self._batch_size)
        pipeline = _evaluation_graph(
            batch_size=self._batch_size,
            num_threads=self._num_threads,
            device_id=_device_id(self._device),
            exec_dynamic=True,
            prefetch_queue_depth=2,
            feed=self._feed,
            packed_format=self._packed.format,
            packed_size=self._packed.size,
        )
        pipeline.build()
        for start in starts:
            (images,) = pipeline.run()
            batch = names[start : start + self._batch_size]
            labels = [torch.from_numpy(self._packed.label_array(start + i)).to(self._device) for i in range(len(batch))]
            yield EvaluationBatch(torch.from_dlpack(images.as_tensor()), labels, batch)

    def _feed(self, index: int) -> tuple[list[NDArray[np.uint8]]]:
        # DALI prefetches past the end; those batches repeat the last image and are never read.
        first = min(index * self._batch_size, len(self._packed.names) - 1)
        last = min(first + self._batch_size, len(self._packed.names))
        return ([self._packed.image_bytes(i) for i in range(first, last)],)


@pipeline_def
def _training_graph(
    feed: Callable[[int], tuple[list[NDArray[Any]], ...]],
    labelled: bool,
    packed_format: str,
    packed_size: tuple[int, int],
    views: Views,
) -> tuple[Node, ...]:
    inputs = fn.external_source(source=feed, num_outputs=11, batch=True)
    image_file, label_file, flip, sigma, window, box, colour, strong_sigma, strong_window, view_colour, class_keys = (
        inputs
    )
    start, end = box[0:2], box[0:2] + box[2:4]
    crop_size = [views.crop_size[1], views.crop_size[0]]
    outputs: dict[str, Node] = {}

    view = _to_device(_decode(image_file, packed_format, packed_size, types.RGB))
    view = fn.flip(view, horizontal=flip)
    view = fn.gaussian_blur(view, sigma=sigma, window_size=window)
    outputs["weak"] = fn.resize(
        view, roi_start=start, roi_end=end, size=crop_size, interp_type=types.INTERP_LINEAR, antialias=True
    )
    strong = jitter_colours(outputs["weak"], _to_device(colour))
    outputs["strong"] = fn.gaussian_blur(strong, sigma=strong_sigma, window_size=strong_window)
    if views.whole:
        jittered = labelled and views.source_jitter > 0
        outputs["view"] = jitter_colours(view, _to_device(view_colour)) if jittered else view
    if labelled:
        label = fn.flip(_to_device(_decode(label_file, packed_format, packed_size, types.GRAY)), horizontal=flip)
        outputs["label"] = fn.resize(label, roi_start=start, roi_end=end, size=crop_size, interp_type=types.INTERP_NN)
        if views.whole:
            outputs["view_label"] = label
    return *(outputs[name] for name in _output_names(views, labelled)), box, class_keys


@pipeline_def
def _evaluation_graph(
    feed: Callable[[int], tuple[list[NDArray[np.uint8]]]], packed_format: str, packed_size: tuple[int, int]
) -> tuple[Node]:
    (image_file,) = fn.external_source(source=feed, num_outputs=1, batch=True)
    return (_to_device(_decode(image_file, packed_format, packed_size, types.RGB)),)


def _output_names(views: Views, labelled: bool) -> list[str]:
    names = ["weak", "strong"]
    if views.whole:
        names.append("view")
    if labelled:
        names += ["label", "view_label"] if views.whole else ["label"]
    return names


def _decode(file: Node, packed_format: str, packed_size: tuple[int, int], kind: Any) -> Node:
    """uint8 [H, W, 3] or [H, W, 1] on the CPU from a packed file's bytes."""
    if packed_format == "raw":
        return fn.reshape(file, shape=[packed_size[1], packed_size[0], 3 if kind == types.RGB else 1], layout="HWC")
    return fn.decoders.image(file, output_type=kind)


def _to_device(node: Node) -> Node:
    return node if Pipeline.current().device_id is None else node.gpu()


def _as_arrays(draws: list[Augmentation]) -> tuple[list[NDArray[Any]], ...]:
    """The augmentations as the graph's inputs, one list a field, one array a sample."""
    return (
        [np.array(draw.flip, np.int32) for draw in draws],
        [np.array(draw.blur[0], np.float32) for draw in draws],
        [np.array(draw.blur[1], np.int32) for draw in draws],
        [np.array(draw.box, np.float32) for draw in draws],
        [np.array(draw.colour, np.float32) for draw in draws],
        [np.array(draw.strong_blur[0], np.float32) for draw in draws],
        [np.array(draw.strong_blur[1], np.int32) for draw in draws],
        [np.array(draw.view_colour, np.float32) for draw in draws],
        [draw.class_keys for draw in draws],
    )


def _flat(label: Tensor | None) -> Tensor | None:
    return None if label is None else label.squeeze(-1)


def _device_id(device: torch.device) -> int | None:
    return None if device.type == "cpu" else (device.index or 0)
