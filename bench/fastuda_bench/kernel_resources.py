"""Registers, shared memory and spilled registers of every kernel, for GPUs that need not be there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import triton
from rich import box
from rich.console import Console
from rich.table import Table
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastuda.errors import FastudaError
from fastuda_bench.kernel_launches import Launch, recorded_launches
from fastuda_bench.results import Row, stamp

SHARED_MEMORY = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024}
"""Bytes that a program may use, by compute capability: A100, RTX 30xx, H100 and H200."""
_TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int64: "i64",
    torch.bool: "i1",
}


def resource_rows(capabilities: Sequence[int]) -> list[Row]:
    """A row for each kernel as it is compiled for each compute capability (86 is 8.6), on any machine.

    Registers are a thread's, `stack_bytes` the memory it spills them to, `shared_bytes` a program's. Raises
    FastudaError where a kernel does not compile.
    """
    shared = stamp(["torch", "triton"])
    with ThreadPoolExecutor() as threads:
        lines = [line for lines in threads.map(_in_a_process, capabilities) for line in lines]
    return [{"question": "resources"} | json.loads(line) | shared for line in lines]


def _in_a_process(capability: int) -> list[str]:
    """JSON lines of `_print_resources`: in a process that interprets kernels they cannot be compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    asked = [sys.executable, "-m", "fastuda_bench.kernel_resources", str(capability)]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise FastudaError(f"kernels do not compile for compute capability {capability}:\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()


def main(capabilities: Sequence[int]) -> list[Row]:
    """Compile, print a table of the kernels, and return the rows."""
    rows = resource_rows(capabilities)
    Console().print(table_of(rows))
    return rows


def largest(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """A head, a column a compute capability, and for each kernel the most registers / KiB / bytes of its launches."""
    capabilities = sorted({row["capability"] for row in rows})
    lines = []
    for operation, kernel in dict.fromkeys((row["operation"], row["kernel"]) for row in rows):
        line = [f"{operation}: {kernel}"]
        for capability in capabilities:
            asked = (operation, kernel, capability)
            own = [row for row in rows if (row["operation"], row["kernel"], row["capability"]) == asked]
            registers, shared, stack = (
                max(row[p] for row in own) for p in ("registers", "shared_bytes", "stack_bytes")
            )
            line.append(f"{registers} / {shared / 1024:.1f} / {stack}")
        lines.append(line)
    return ["kernel", *(f"sm_{capability}" for capability in capabilities)], lines


def table_of(rows: Sequence[Row]) -> Table:
    """A line for each kernel, a column for each compute capability."""
    title = f"registers / shared KiB / spilled bytes, compiled by Triton {rows[0]['versions']['triton']}"
    head, lines = largest(rows)
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in head:
        table.add_column(column, justify="left" if column == head[0] else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def _source(launch: Launch) -> tuple[ASTSource, dict[str, Any], tuple[Any, ...]]:
    """What Triton compiles for a launch, its options, and a key that launches which compile to the same share."""
    kernel, constants = launch.kernel, launch.constants
    options = {name: value for name, value in constants.items() if name in ("num_warps", "num_stages")}
    values = dict(zip(kernel.arg_names, launch.arguments, strict=False)) | constants
    signature: dict[str, str] = {}
    known: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, name in enumerate(kernel.arg_names):
        value = values[name]
        if name in constants or (isinstance(value, int) and value == 1):  # Triton makes a constant of every 1
            signature[name], known[(index,)] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[name] = f"*{_TYPES[value.dtype]}"
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=known, attrs=attributes)
    parts = (tuple(part.items()) for part in (signature, known, options))
    return source, options, (kernel.__name__, tuple(attributes), *parts)


def _print_resources(capability: int) -> None:
    """A JSON line for each launch; of those that compile to the same, for the first."""
    seen = set()
    for launch in recorded_launches():
        source, options, key = _source(launch)
        if key in seen:
            continue
        seen.add(key)
        binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        row = {
            "operation": launch.kernel.fn.__module__.split(".")[1],
            "kernel": launch.kernel.__name__,
            "size": launch.size,
            "constants": launch.constants,
            "capability": capability,
            "shared_bytes": binary.metadata.shared,
            **_usage(binary.asm["cubin"]),
        }
        print(json.dumps(row), flush=True)


def _usage(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", said.stdout)
    assert found is not None, said.stdout
    return {"registers": int(found[1]), "stack_bytes": int(found[2])}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="fastuda-triton-") as folder:
        triton.knobs.cache.dir = folder
        _print_resources(int(sys.argv[1]))
