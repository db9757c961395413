"""The kernels that torch's compiler would make of a traced graph, counted by its own scheduler, on no GPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch._inductor.compile_fx as inductor
from torch import Tensor
from torch._inductor import ir, scheduler
from torch._inductor.debug import DebugContext
from torch._inductor.fx_passes.post_grad import view_to_reshape
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule
from torch.utils._python_dispatch import _disable_current_modes

from fastuda_bench.supposed_gpu import DEVICE, supposed_gpu
from fastuda_bench.tally import Tally

_PRODUCTS = ("convolution", "mm", "bmm", "addmm", "baddbmm")


def scheduled(traced: GraphModule, inputs: Sequence[Any], *, backward: bool = False, inference: bool = False) -> Tally:
    """Launches and bytes of a graph traced by AOTAutograd on a CPU, lowered and fused as if for an H100.

    Everything short of writing code is done: the compiler's passes over the graph, lowering, fusion. Bytes
    are the scheduler's: each buffer that a kernel touches once, at most its size; what a fused kernel keeps in
    registers is not among them, nor what a library's convolution uses as workspace. A Triton kernel's bytes are
    those of its tensors.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with _disable_current_modes(), torch.no_grad(), supposed_gpu(), ExitStack() as stack:
        graph_module, on_gpu = _moved(traced, inputs, mode)
        view_to_reshape(graph_module)  # type: ignore[no-untyped-call]
        inductor.fake_tensor_prop(graph_module, on_gpu)
        stack.enter_context(V.set_fake_mode(mode))
        inductor._recursive_post_grad_passes(graph_module, is_inference=inference)
        graph = GraphLowering(graph_module, example_inputs=on_gpu, is_inference=inference, is_backward=backward)
        for handler in (V.set_debug_handler(DebugContext()), V.set_graph_handler(graph), V.set_extern_kernel_nodes([])):
            stack.enter_context(handler)
        graph.run(*on_gpu)
        graph.init_wrapper_code()
        graph._update_scheduler()
        total = Tally()
        for node in graph.scheduler.nodes:
            total.add(_counted(node))
    return total


def _moved(traced: GraphModule, inputs: Sequence[Any], mode: FakeTensorMode) -> tuple[GraphModule, list[Any]]:
    """A copy of the graph that works on the GPU, and fake inputs there."""
    graph = Graph()
    graph.output(graph.graph_copy(traced.graph, {}))
    for node in graph.nodes:
        if isinstance(node.kwargs.get("device"), torch.device):
            node.kwargs = {**node.kwargs, "device": DEVICE}
        node.meta = {name: value for name, value in node.meta.items() if name not in ("val", "tensor_meta")}
    with mode:
        moved = [
            torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=DEVICE)
            if isinstance(one, Tensor)
            else one
            for one in inputs
        ]
    return GraphModule(traced, graph), moved


def _counted(node: Any) -> Tally:
    """One node of the scheduler's: a fused kernel, a library's, one of ours, or nothing to launch."""
    if isinstance(node, scheduler.NopKernelSchedulerNode):
        return Tally()
    if not isinstance(node, scheduler.ExternKernelSchedulerNode):
        return Tally(fused=1, bytes=node.get_read_write_buffers_sizes())
    kernel: Any = node.node
    if isinstance(kernel, ir.MultiOutput):  # a result of a kernel that is counted itself, or a convolution's gradient
        return Tally(products=int(_name(kernel.inputs[0]) == "convolution_backward"))
    if isinstance(kernel, ir.UserDefinedTritonKernel):
        # Its tensors are all dependencies that it reads; those it writes to it names once more.
        return Tally(triton=1, bytes=node.get_read_buffer_sizes())
    name, size = _name(kernel), node.get_read_write_buffers_sizes()
    if name == "convolution_backward":
        return Tally(bytes=size)
    return Tally(products=1, bytes=size) if name in _PRODUCTS else Tally(others=1, bytes=size)


def _name(kernel: Any) -> str:
    """`convolution` for aten.convolution.default, `bmm` for extern_kernels.bmm."""
    operation = getattr(kernel, "op_overload", None)
    if operation is not None:
        return str(operation).split(".")[1]
    return str(getattr(kernel, "python_kernel_name", None)).split(".")[-1]
