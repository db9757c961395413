"""The DALI graphs that turn packed files into batches: one for training, one for evaluation.

One graph serves CPU (`device_id=None`) and GPU. Every random choice enters as data, drawn in
`sampling.py`, so the graphs themselves are deterministic and hold no state worth saving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, pipeline_def, types
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from fastuda.data.loading.colour import jitter_colours
from fastuda.data.packing.pack import IMAGES, LABELS, Packed
from fastuda.data.packing.pack_sample import encode_image
from fastuda.data.reading.faults import SampleError
from fastuda.recipe import Views

Node = Any


@pipeline_def  # type: ignore[untyped-decorator]
def training_graph(
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
        view, roi_start=start, roi_end=end, size=crop_size, interp_type=types.INTERP_LINEAR, antialias=views.antialias
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
    wanted = output_names(views, labelled="label" in given)
    return *(outputs[name] for name in wanted), _to_device(given["box"]), _to_device(given["class_keys"])


@pipeline_def  # type: ignore[untyped-decorator]
def evaluation_graph(
    feed: Callable[[int], tuple[list[NDArray[np.uint8]]]], packed_format: str, packed_size: tuple[int, int]
) -> tuple[Node]:
    (image_file,) = fn.external_source(source=feed, num_outputs=1, batch=True)
    return (_to_device(_decode(image_file, packed_format, packed_size, types.RGB)),)


def input_names(views: Views, *, labelled: bool) -> list[str]:
    """Of the training graph, in order."""
    names = ["image", "flip", "sigma", "window", "box", "colour", "strong_sigma", "strong_window", "class_keys"]
    if labelled:
        names.append("label")
    if labelled and views.whole and views.source_jitter > 0:
        names.append("view_colour")
    return names


def output_names(views: Views, *, labelled: bool) -> list[str]:
    """Of the training graph, in order; boxes and class keys come behind them."""
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


def run_pipeline(pipeline: Pipeline, device: torch.device) -> list[Tensor]:
    """The next outputs, not copied; on a GPU in the order of the current stream, without waiting for them."""
    on_gpu = device.type == "cuda"
    outputs = pipeline.run(torch.cuda.current_stream(device)) if on_gpu else pipeline.run()
    return [from_dlpack(output.as_tensor()) for output in outputs]


def undecodable(
    packed: Packed, samples: Iterable[int], *, labels: bool, device: torch.device
) -> dict[int, SampleError]:
    """Those of some samples whose packed files DALI cannot decode, or that cannot be read, and why; each tried alone.

    Empty as well where it cannot decode a sound picture either: then it is not the samples.
    """
    blank = np.zeros((packed.size[1], packed.size[0], 3), np.uint8)
    if _refusal(np.frombuffer(encode_image(blank, packed.format)[0], np.uint8), packed, types.RGB, device):
        return {}
    found: dict[int, SampleError] = {}
    for index in sorted(set(samples)):
        try:
            _require_decodable(packed, index, labels, device)
        except SampleError as error:
            found[index] = error
    return found


def _require_decodable(packed: Packed, index: int, labels: bool, device: torch.device) -> None:
    for kind in (IMAGES, LABELS) if labels else (IMAGES,):
        file = packed.image_bytes(index) if kind == IMAGES else packed.label_bytes(index)
        refusal = _refusal(file, packed, types.RGB if kind == IMAGES else types.GRAY, device)
        if refusal is not None:
            raise SampleError("undecodable", packed.path(index, kind), f"cannot be decoded ({refusal})")


@pipeline_def  # type: ignore[untyped-decorator]
def _decoding_graph(file: NDArray[np.uint8], packed_format: str, packed_size: tuple[int, int], kind: Any) -> Node:
    given = fn.external_source(source=lambda: [file], batch=True)
    return _to_device(_decode(given, packed_format, packed_size, kind))


def _refusal(file: NDArray[np.uint8], packed: Packed, kind: Any, device: torch.device) -> str | None:
    """Why DALI does not decode a file to the pack's size; None if it does."""
    pipeline = _decoding_graph(
        file, packed.format, packed.size, kind,
        batch_size=1, num_threads=1, device_id=device_id_of(device), exec_dynamic=True, prefetch_queue_depth=1,
    )  # fmt: skip
    pipeline.build()
    try:
        (decoded,) = pipeline.run()
        shape = tuple(decoded.shape()[0])
    except RuntimeError as error:
        # DALI's message is a page; the reason is the line behind this word.
        return str(error).partition("encountered:")[2].strip().partition("\n")[0].strip(" :") or type(error).__name__
    if shape[:2] != packed.size[::-1]:
        return f"it is {shape[1]}x{shape[0]}, and {packed.size[0]}x{packed.size[1]} is the pack's"
    return None


def device_id_of(device: torch.device) -> int | None:
    """DALI's number of a device, None for the CPU."""
    return None if device.type == "cpu" else (device.index or 0)
