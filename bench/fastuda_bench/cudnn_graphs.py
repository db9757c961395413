"""Does cuDNN fuse BatchNorm into our convolutions? One of its graphs a shape: supported or why not, and how fast.

The graph is scale, bias and ReLU on the way in (the BatchNorm before), the convolution, and sums and sums of
squares of its output on the way out (the statistics of the BatchNorm after): bf16, channels-last. It needs the
optional package `nvidia-cudnn-frontend`, whose module is `cudnn`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from rich import box
from rich.table import Table
from torch import Tensor

from fastuda_bench.results import Row, failure, gpu, stamp, summary
from fastuda_bench.timing import measure

MISSING = "the package is not installed: pip install nvidia-cudnn-frontend"
NO_GPU = "cuDNN's graphs need a GPU"
_KERNELS = (
    (1, 64, 256, 1),
    (1, 1024, 256, 1),
    (1, 256, 1024, 1),
    (1, 2048, 512, 1),
    (3, 256, 256, 2),
    (3, 512, 512, 4),
)
_POSITIONS = ((2, 91, 161), (6, 65, 65))
_TOLERANCE = 2e-2
"""Of the largest value: bf16 in, fp32 inside, bf16 out."""


@dataclass(frozen=True)
class Shape:
    """A convolution of the network at output stride 8."""

    kernel: int
    inputs: int
    outputs: int
    dilation: int
    positions: tuple[int, int, int]
    """Images, height, width."""

    def __str__(self) -> str:
        dilated = f" dilation {self.dilation}" if self.dilation > 1 else ""
        count, height, width = self.positions
        return f"{self.kernel}×{self.kernel} {self.inputs}→{self.outputs}{dilated}, {count}×{height}×{width}"

    @property
    def padding(self) -> int:
        """What keeps the positions as many as they are."""
        return self.dilation * (self.kernel // 2)


SHAPES = tuple(Shape(*kernel, positions) for kernel in _KERNELS for positions in _POSITIONS)


def missing(device: torch.device) -> str | None:
    """Why no graph can be tried here, None if one can."""
    if device.type != "cuda":
        return NO_GPU
    return None if importlib.util.find_spec("cudnn") is not None else MISSING


def cudnn_rows(
    device: torch.device, *, repeats: int = 3, keep: Callable[[list[Row]], None] = lambda rows: None
) -> list[Row]:
    """A row a shape: `supported` (None where it could not be tried), the `reason` if not, milliseconds.

    `unfused` is torch's convolution alone, `separate` with scale, bias, ReLU and the statistics around it as
    operations of their own. A result that is not theirs is a `disagreement`. `keep` gets the rows so far.
    """
    why_not = missing(device)
    shared = {"unfused": None, "separate": None, "fused": None, **gpu(device), **stamp(["torch", "triton"])}
    rows: list[Row] = []
    for shape in SHAPES:
        row: Row = {"question": "cudnn", "size": str(shape), **shared, "supported": None, "reason": why_not}
        if why_not is None:
            try:
                row |= _tried(shape, device, repeats)
            except Exception as error:  # of torch alone: cuDNN's are reasons
                row["error"] = failure(error)
        rows.append(row)
        keep(rows)
    return rows


def table_of(rows: list[Row]) -> Table:
    """The rows as a table."""
    title = f"cuDNN's fused graphs, bf16 channels-last, on {rows[0]['gpu'] or rows[0]['cpu']}; milliseconds"
    table = Table(title=title, box=box.SIMPLE)
    for column in ("convolution", "alone", "with its neighbours", "fused", "supported"):
        table.add_column(column, justify="left" if column in ("convolution", "supported") else "right")
    for row in rows:
        times = ("–" if row[way] is None else f"{row[way]['median']:.4f}" for way in ("unfused", "separate", "fused"))
        said = row.get("error") or row.get("disagreement") or ("yes" if row["supported"] else row["reason"])
        table.add_row(row["size"], *times, said)
    return table


def _tried(shape: Shape, device: torch.device, repeats: int) -> Row:
    count, height, width = shape.positions
    nhwc, dtype = torch.channels_last, torch.bfloat16
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device).to(dtype).contiguous(memory_format=nhwc)

    image = normal(count, shape.inputs, height, width)
    fan_in = shape.inputs * shape.kernel**2
    weight = normal(shape.outputs, shape.inputs, shape.kernel, shape.kernel) / fan_in**0.5
    scale, bias = 1 + 0.1 * normal(1, shape.inputs, 1, 1), 0.1 * normal(1, shape.inputs, 1, 1)

    def unfused() -> Tensor:
        return F.conv2d(image, weight, padding=shape.padding, dilation=shape.dilation)

    def separate() -> tuple[Tensor, Tensor, Tensor]:
        activated = torch.relu(image * scale + bias)
        out = F.conv2d(activated, weight, padding=shape.padding, dilation=shape.dilation)
        return out, out.sum((0, 2, 3), dtype=torch.float32), out.float().square().sum((0, 2, 3))

    row: Row = {
        "unfused": summary(measure(unfused, device, repeats).milliseconds),
        "separate": summary(measure(separate, device, repeats).milliseconds),
    }
    try:
        fused = _Fused(shape, image, weight, scale, bias)
        fused()
        torch.cuda.synchronize()
    except Exception as error:  # cudnnGraphNotSupportedError, or what a broken installation raises
        return row | {"supported": False, "reason": failure(error)}
    row |= {"supported": True, "fused": summary(measure(fused, device, repeats).milliseconds)}
    names = ("output", "sums", "sums of squares")
    for name, found, wanted in zip(names, fused.results, separate(), strict=True):
        apart = float((found.float().flatten() - wanted.float().flatten()).abs().max() / wanted.abs().max())
        # Written so that NaN does not pass.
        if not apart <= _TOLERANCE:
            row["disagreement"] = f"the {name} differ from torch's by {apart:.1%} of the largest"
            break
    return row


class _Fused:
    """The graph built for one shape; a call runs it on the current stream. Raises cuDNN's errors."""

    def __init__(self, shape: Shape, image: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> None:
        self._cudnn: Any = importlib.import_module("cudnn")
        cudnn = self._cudnn
        self._handle = cudnn.create_handle()
        self._follow_stream()
        graph = cudnn.pygraph(
            io_data_type=cudnn.data_type.BFLOAT16,
            intermediate_data_type=cudnn.data_type.BFLOAT16,
            compute_data_type=cudnn.data_type.FLOAT,
            handle=self._handle,
        )

        def given(name: str, tensor: Tensor) -> Any:
            _, channels, height, width = tensor.shape
            # Spelt out: of a 1×1 filter torch's strides may be those of either layout.
            stride = [channels * height * width, 1, channels * width, channels]
            return graph.tensor(name=name, dim=list(tensor.shape), stride=stride, data_type=cudnn.data_type.BFLOAT16)

        x, w, s, b = (given(*one) for one in (("x", image), ("w", weight), ("s", scale), ("b", bias)))
        activated = graph.relu(
            name="relu", input=graph.bias(name="bias", input=graph.scale(name="scale", input=x, scale=s), bias=b)
        )
        pad, dilation = [shape.padding] * 2, [shape.dilation] * 2
        y = graph.conv_fprop(image=activated, weight=w, padding=pad, stride=[1, 1], dilation=dilation)
        y.set_output(True)
        total, squares = graph.genstats(name="genstats", input=y)
        for statistic in (total, squares):
            statistic.set_output(True).set_data_type(cudnn.data_type.FLOAT)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.check_support()
        graph.build_plans()
        count, height, width = shape.positions
        out = torch.empty(
            (count, shape.outputs, height, width),
            dtype=torch.bfloat16,
            device=image.device,
            memory_format=torch.channels_last,
        )
        sums = [torch.empty((1, shape.outputs, 1, 1), device=image.device) for _ in range(2)]
        self.results = (out, *sums)
        """Output, sums and sums of squares over its positions; each call overwrites them."""
        self._graph = graph
        self._held = (image, weight, scale, bias)
        held = {x: image, w: weight, s: scale, b: bias, y: out, total: sums[0], squares: sums[1]}
        self._pointers = {node: tensor.data_ptr() for node, tensor in held.items()}
        self._workspace = torch.empty(max(1, graph.get_workspace_size()), device=image.device, dtype=torch.uint8)

    def __call__(self) -> None:
        self._follow_stream()
        self._graph.execute(self._pointers, self._workspace.data_ptr(), handle=self._handle)

    def _follow_stream(self) -> None:
        """Captures run on a stream of their own."""
        self._cudnn.set_stream(handle=self._handle, stream=torch.cuda.current_stream().cuda_stream)
