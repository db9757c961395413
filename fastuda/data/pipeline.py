"""The DALI graphs that turn packed files into batches: source training, target training, evaluation.

One graph serves CPU (`device_id=None`) and GPU. Every random choice enters as data, drawn in
`sampling.py`, so the graphs themselves are deterministic and hold no state worth saving.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, pipeline_def, types
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from fastuda.data.batch import DomainBatch, EvaluationBatch
from fastuda.data.colour import jitter_colours
from fastuda.data.prepare import Packed
from fastuda.data.sampling import Augmentation, DomainName, Schedule, draw_augmentation
from fastuda.recipe import Recipe, Views

Node = Any
_LABELS_AHEAD = 2
"""Batches whose labels are decoded before they are asked for."""


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
        self._fields = _input_names(recipe.views, labelled=domain == "source")
        self._pipeline = _training_graph(
            batch_size=recipe.train.batch_size,
            num_threads=recipe.runtime.loader_threads,
            device_id=_device_id(device),
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
        *images, boxes, class_keys = _run(self._pipeline, self._device)
        named = dict(zip(_output_names(self._recipe.views, labelled="label" in self._fields), images, strict=True))
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


class EvaluationLoader:
    """One pass over a packed split, in order, in batches on `device`; the last batch may be smaller.

    `labelled=False` leaves labels out; `limit` takes that many images, spread evenly over the split.
    """

    def __init__(
        self,
        packed: Packed,
        batch_size: int,
        num_threads: int,
        device: torch.device,
        *,
        labelled: bool = True,
        limit: int | None = None,
    ) -> None:
        self.folder = packed.folder
        self._packed = packed
        self._batch_size = batch_size
        self._num_threads = num_threads
        self._device = device
        self._labelled = labelled
        count = min(limit or len(packed), len(packed))
        samples = [i * len(packed) // count for i in range(count)]
        self._batches = [samples[start : start + batch_size] for start in range(0, count, batch_size)]

    def __len__(self) -> int:
        """Number of images."""
        return sum(len(batch) for batch in self._batches)

    def __iter__(self) -> Iterator[EvaluationBatch]:
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
        with ThreadPoolExecutor(self._num_threads) as pool:
            labels = self._labels(pool)
            for batch in self._batches:
                (images,) = _run(pipeline, self._device)
                yield EvaluationBatch(images, next(labels), [self._packed.names[i] for i in batch])

    def _labels(self, pool: ThreadPoolExecutor) -> Iterator[list[Tensor]]:
        """Each batch's labels on the device; the pool decodes those of the next batches meanwhile."""

        def read(index: int) -> Tensor:
            return torch.from_numpy(self._packed.label_array(index).copy())

        under_way: deque[list[Future[Tensor]]] = deque()
        for batch in self._batches:
            under_way.append([pool.submit(read, i) for i in batch] if self._labelled else [])
            if len(under_way) > _LABELS_AHEAD:
                yield self._sent(under_way.popleft())
        while under_way:
            yield self._sent(under_way.popleft())

    def _sent(self, labels: list[Future[Tensor]]) -> list[Tensor]:
        decoded = [label.result() for label in labels]
        if self._device.type == "cpu":
            return decoded
        return [label.pin_memory().to(self._device, non_blocking=True) for label in decoded]

    def _feed(self, index: int) -> tuple[list[NDArray[np.uint8]]]:
        # DALI prefetches past the end; those batches repeat the last one and are never read.
        batch = self._batches[min(index, len(self._batches) - 1)]
        return ([self._packed.image_bytes(i) for i in batch],)


@pipeline_def  # type: ignore[untyped-decorator]
def _training_graph(
    feed: Callable[[int], tuple[list[NDArray[Any]], ...]],
    fields: list[str],
    packed_format: str,
    packed_size: tuple[int, int],
    views: Views,
) -> tuple[Node, ...]:
    nodes = fn.external_source(source=feed, num_outputs=len(fields), batch=True)
    given: dict[str, Node] = dict(zip(fields, nodes, strict=True))
    start, end = given["box"][0:2], given["box"][0:2] + given["box"][2:4]
    crop_size = [views.crop_size[1], views.crop_size[0]]
    outputs: dict[str, Node] = {}

    view = _to_device(_decode(given["image"], packed_format, packed_size, types.RGB))
    view = fn.flip(view, horizontal=given["flip"])
    view = fn.gaussian_blur(view, sigma=given["sigma"], window_size=given["window"])
    outputs["weak"] = fn.resize(
        view, roi_start=start, roi_end=end, size=crop_size, interp_type=types.INTERP_LINEAR, antialias=True
    )
    strong = jitter_colours(outputs["weak"], _to_device(given["colour"]))
    outputs["strong"] = fn.gaussian_blur(strong, sigma=given["strong_sigma"], window_size=given["strong_window"])
    if "view_colour" in given:
        view = jitter_colours(view, _to_device(given["view_colour"]))
    outputs["view"] = view
    if "label" in given:
        label = _to_device(_decode(given["label"], packed_format, packed_size, types.GRAY))
        label = fn.flip(label, horizontal=given["flip"])
        outputs["label"] = fn.resize(label, roi_start=start, roi_end=end, size=crop_size, interp_type=types.INTERP_NN)
        outputs["view_label"] = label
    wanted = _output_names(views, labelled="label" in given)
    return *(outputs[name] for name in wanted), _to_device(given["box"]), _to_device(given["class_keys"])


@pipeline_def  # type: ignore[untyped-decorator]
def _evaluation_graph(
    feed: Callable[[int], tuple[list[NDArray[np.uint8]]]], packed_format: str, packed_size: tuple[int, int]
) -> tuple[Node]:
    (image_file,) = fn.external_source(source=feed, num_outputs=1, batch=True)
    return (_to_device(_decode(image_file, packed_format, packed_size, types.RGB)),)


def _input_names(views: Views, *, labelled: bool) -> list[str]:
    names = ["image", "flip", "sigma", "window", "box", "colour", "strong_sigma", "strong_window", "class_keys"]
    if labelled:
        names.append("label")
    if labelled and views.whole and views.source_jitter > 0:
        names.append("view_colour")
    return names


def _output_names(views: Views, *, labelled: bool) -> list[str]:
    names = ["weak", "strong", "view"] if views.whole else ["weak", "strong"]
    if labelled:
        names += ["label", "view_label"] if views.whole else ["label"]
    return names


def _decode(file: Node, packed_format: str, packed_size: tuple[int, int], kind: Any) -> Node:
    """uint8 [H, W, 3] or [H, W, 1] from a packed file's bytes: on the GPU for its JPEGs, else on the CPU."""
    if packed_format == "raw":
        return fn.reshape(file, shape=[packed_size[1], packed_size[0], 3 if kind == types.RGB else 1], layout="HWC")
    # Labels are PNGs in every format, and no GPU decodes a PNG.
    in_hardware = packed_format == "jpeg" and kind == types.RGB and Pipeline.current().device_id is not None
    return fn.decoders.image(file, output_type=kind, device="mixed" if in_hardware else "cpu")


def _to_device(node: Node) -> Node:
    on_cpu = Pipeline.current().device_id is None or node.device == "gpu"
    return node if on_cpu else node.gpu()


def _run(pipeline: Pipeline, device: torch.device) -> list[Tensor]:
    """The next outputs, not copied; on a GPU in the order of the current stream, without waiting for them."""
    on_gpu = device.type == "cuda"
    outputs = pipeline.run(torch.cuda.current_stream(device)) if on_gpu else pipeline.run()
    return [from_dlpack(output.as_tensor()) for output in outputs]


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


def _device_id(device: torch.device) -> int | None:
    return None if device.type == "cpu" else (device.index or 0)
