"""Compiles every launch of the four operations for a GPU that need not be there; prints a JSON row a launch.

A process of its own, started by `test_kernels_compile.py`: kernels that this test session interprets cannot be
compiled in it. Usage: python compile_kernels.py COMPUTE_CAPABILITY (such as 90).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastuda_kernels.masked_mix import triton as masked_mix
from fastuda_kernels.pixel_contrast import triton as pixel_contrast
from fastuda_kernels.pseudo_label import triton as pseudo_label
from fastuda_kernels.upsample_cross_entropy import triton as upsample_cross_entropy

H200_MULTIPROCESSORS = 132
TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int64: "i64",
    torch.bool: "i1",
}
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


def recorded_launches() -> list[Launch]:
    """Kernel, arguments and constants of each launch at the paper's sizes and at the smallest ones."""
    launches: list[Launch] = []
    for module in (masked_mix, pixel_contrast, pseudo_label, upsample_cross_entropy):
        module.wrap_triton = lambda kernel: kernel
        module.launch = lambda kernel, grid, *args, **constants: launches.append((kernel, args, constants))
    pixel_contrast.num_multiprocessors = lambda device: H200_MULTIPROCESSORS
    for num_images, num_classes, low, full in ((2, 19, 65, 512), (1, 150, 1, 1)):
        logits = torch.zeros(num_images, num_classes, low, low, dtype=torch.bfloat16)
        logits = logits.to(memory_format=torch.channels_last)
        labels = torch.zeros(num_images, full, full, dtype=torch.uint8)
        _mix(labels, num_classes)
        _label(logits, labels)
        _cross_entropy(logits, labels)
        _contrast(logits)
    return launches


def _mix(labels: torch.Tensor, num_classes: int) -> None:
    crop = torch.zeros(*labels.shape, 3, dtype=torch.uint8)
    chosen = torch.zeros(len(labels), num_classes, dtype=torch.bool)
    confidence, numbers = torch.zeros(labels.shape), ([1.0] * 3, [1.0] * 3)
    masked_mix.choose_present._init_fn(labels, torch.zeros(chosen.shape), 0.5, 0, True)
    masked_mix.normalise_values._init_fn(crop, *numbers, True, torch.float16)
    for keep, dtype in enumerate((torch.float32, torch.float16, torch.bfloat16)):
        ends = (confidence, chosen, *numbers, keep == 1, dtype, 0.95, 255, keep, keep == 2)
        masked_mix.mix._init_fn(*[crop] * 4, labels, labels, None, None, *ends)


def _label(logits: torch.Tensor, labels: torch.Tensor) -> None:
    size, boxes, flip = labels.shape[1:], torch.zeros(len(logits), 4), torch.zeros(len(logits), dtype=torch.bool)
    pseudo_label.label_of_upsampled._init_fn(logits, *size, None, *size, None, None)
    pseudo_label.label_of_upsampled._init_fn(logits, *size, logits, 640, 1280, boxes, flip)
    pseudo_label.confusion_of_upsampled._init_fn(logits, labels, 255)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> None:
    cross_entropy = upsample_cross_entropy.cross_entropy_with_gradient._init_fn
    cross_entropy(logits, labels, None, None, 255, True, True)
    cross_entropy(logits, labels.long(), labels.bool(), torch.zeros(labels.shape), 255, False, True)
    cross_entropy(logits, labels, None, None, 255, True, False)


def _contrast(logits: torch.Tensor) -> None:
    rows = logits.flatten(2).transpose(1, 2)
    for split, valid in ((True, None), (False, torch.zeros(rows.shape[:2], dtype=torch.bool))):
        kept = pixel_contrast.contrast_forward._init_fn(rows, rows, valid, 20.0, split, split)[1:]
        pixel_contrast.contrast_backward._init_fn(torch.ones(()), rows, *kept, valid, 20.0, split, split)


def compiled(launch: Launch, target: GPUTarget) -> dict[str, Any]:
    """Name, shared memory in bytes, and registers and stack of a thread."""
    kernel, args, constants = launch
    options = {name: value for name, value in constants.items() if name in ("num_warps", "num_stages")}
    values = dict(zip(kernel.arg_names, args, strict=False)) | constants
    signature: dict[str, str] = {}
    known: dict[tuple[int], Any] = {}
    attributes: dict[tuple[int], Any] = {}
    for index, name in enumerate(kernel.arg_names):
        value = values[name]
        if name in constants or (isinstance(value, int) and value == 1):  # Triton makes a constant of every 1
            signature[name], known[(index,)] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[name] = f"*{TYPES[value.dtype]}"
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=known, attrs=attributes)
    binary = triton.compile(source, target=target, options=options)
    return {"kernel": kernel.__name__, "shared": binary.metadata.shared, **_resources(binary.asm["cubin"])}


def _resources(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", said.stdout)
    assert found is not None, said.stdout
    return {"registers": int(found[1]), "stack": int(found[2])}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for one in recorded_launches():
        print(json.dumps(compiled(one, GPUTarget("cuda", int(sys.argv[1]), 32))), flush=True)
