"""The convolutions of an ONNX file, in the order of its graph, each with the channels' constants that follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.printable import on_one_line

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

PARTS = ("weight", "shift", "scale", "offset")
"""What is read of a convolution."""

_PASSING = ("Cast", "Identity", "Transpose")
"""What leaves the values as they are."""


def read_onnx(content: bytes) -> dict[str, Tensor]:
    """float32 `convolutions.N.weight` [O, I, K, K] and `convolutions.N.shift`, `.scale`, `.offset` [O].

    What comes of the N-th convolution is (convolution + shift) · scale + offset: its own bias, and what an exporter
    left of a BatchNorm behind it. Nothing that the graph says is run, and no file beside it is read.

    Raises FastudaError, without the file, when it is no ONNX file, none with convolutions and their weights in it, or
    the package `onnx` is missing.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise FastudaError("to read an ONNX file takes the package onnx: pip install 'fastuda[small]'") from error
    try:
        graph = onnx.load_model_from_string(content).graph
        if any(one.data_location == onnx.TensorProto.EXTERNAL for one in graph.initializer):
            raise FastudaError("its weights lie in another file, which is not read; save it with the weights in it")
        constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        for node in graph.node:
            if node.op_type == "Identity" and node.input[0] in constants:
                constants[node.output[0]] = constants[node.input[0]]
        found = _convolutions(graph, constants)
    except (FastudaError, MemoryError):
        raise
    except Exception as error:  # damage can raise anything in protobuf and in numpy
        reason = on_one_line((str(error).strip() or type(error).__name__).splitlines()[0], 200)
        raise FastudaError(f"no readable ONNX file ({reason}); it is damaged, cut short or something else") from error
    if not found:
        raise FastudaError("an ONNX file without any convolution whose weights it holds; fastuda has no such network")
    return found


def _convolutions(graph: GraphProto, constants: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, Tensor] = {}
    number = 0
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in constants:
            continue
        weight = _tensor(constants[node.input[1]])
        affine = _Affine(weight.shape[0])
        if len(node.input) > 2 and node.input[2]:
            affine.take("Add", _tensor(constants[node.input[2]]).flatten())
        _follow(node.output[0], affine, readers, constants)
        values = (weight, affine.shift, affine.scale, affine.offset)
        found |= {f"convolutions.{number}.{part}": value for part, value in zip(PARTS, values, strict=True)}
        number += 1
    return found


class _Affine:
    """(x + shift) · scale + offset, a number a channel, as one operation after another adds to it."""

    def __init__(self, channels: int) -> None:
        self.shift, self.scale, self.offset = torch.zeros(channels), torch.ones(channels), torch.zeros(channels)
        self._scaled = False

    def take(self, operation: str, value: Tensor) -> None:
        if operation == "Mul":
            self.scale, self.offset, self._scaled = self.scale * value, self.offset * value, True
            return
        value = -value if operation == "Sub" else value
        if self._scaled:
            self.offset = self.offset + value
        else:
            self.shift = self.shift + value


def _follow(
    name: str, affine: _Affine, readers: Mapping[str, list[NodeProto]], constants: Mapping[str, np.ndarray]
) -> None:
    """Take what is done to the value `name` with constants of its channels, as far as nothing else happens to it."""
    for _ in range(len(readers)):  # a stranger's graph may be a circle
        if len(readers.get(name, ())) != 1:
            return
        (node,) = readers[name]
        if node.op_type in ("Add", "Mul", "Sub"):
            first, second = node.input
            other = second if first == name else first
            fits = other in constants and constants[other].size == len(affine.scale)
            if not fits or (node.op_type == "Sub" and first != name):
                return
            affine.take(node.op_type, _tensor(constants[other]).flatten())
        elif node.op_type not in _PASSING:
            return
        name = node.output[0]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))
