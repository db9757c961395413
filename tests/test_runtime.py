"""The device, torch's switches, and the polite stop."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from fastuda.errors import FastudaError
from fastuda.recipe import Runtime
from fastuda.runtime.device import choose_device, device_name, versions
from fastuda.runtime.switches import configure


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


@pytest.mark.parametrize("name", [None, "cpu"])
@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_cpu_is_used(name: str | None) -> None:
    assert choose_device(name) == torch.device("cpu")


@pytest.mark.parametrize(("name", "device"), [(None, "cuda:1"), ("cuda", "cuda:1"), ("cpu", "cpu")])
@pytest.mark.usefixtures("a_gpu")
def test_with_a_gpu_the_current_one_is_used_unless_the_cpu_is_asked_for(name: str | None, device: str) -> None:
    assert choose_device(name) == torch.device(device)


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_that_is_not_there_is_refused_with_ways_out() -> None:
    with pytest.raises(
        FastudaError, match=r"no usable GPU here; `fastuda doctor` says why, and cpu works \(--device cpu, in Python"
    ):
        choose_device("cuda")


def test_another_device_is_refused_naming_those_there_are() -> None:
    with pytest.raises(FastudaError, match="device mps: cuda or cpu"):
        choose_device("mps")


@pytest.fixture
def _switches_put_back() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.utils.deterministic.fill_uninitialized_memory = before[1]


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.usefixtures("_switches_put_back")
def test_determinism_is_as_asked_for(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    configure(Runtime(deterministic=not asked), torch.device("cpu"))
    configure(Runtime(deterministic=asked), torch.device("cpu"))
    assert torch.are_deterministic_algorithms_enabled() == asked
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.usefixtures("_switches_put_back")
def test_determinism_does_not_pay_for_filling_memory_that_is_written_anyway() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True
    configure(Runtime(deterministic=True), torch.device("cpu"))
    assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize(
    ("settings", "tf32", "benchmark"),
    [
        (Runtime(), True, True),
        (Runtime(tf32=False), False, True),
        (Runtime(cudnn_benchmark=False), True, False),
        (Runtime(deterministic=True), True, False),
    ],
)
@pytest.mark.usefixtures("_switches_put_back")
def test_precision_and_benchmark_of_a_gpus_convolutions(
    settings: Runtime, tf32: bool, benchmark: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not tf32)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not benchmark)
    configure(settings, torch.device("cuda"))
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert torch.backends.cudnn.benchmark == benchmark
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("products", ["highest", "high", "medium", "tf32 alone"])
@pytest.mark.parametrize("convolutions", ["tf32", "none", "conv alone"])
def test_a_callers_switches_are_put_back(products: str, convolutions: str) -> None:
    """In a process of its own: what torch keeps of precision in two ways is not easily put back."""
    done = subprocess.run([sys.executable, "-c", _PUT_BACK, products, convolutions], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, within, after, failed = done.stdout.splitlines()
    assert before == after == failed
    assert within != before


_PUT_BACK = """
import os, sys
import torch
from fastuda.recipe import Runtime
from fastuda.runtime.switches import configured

os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
products, convolutions = sys.argv[1:]
backends, fills = torch.backends, torch.utils.deterministic
if products == "tf32 alone":
    backends.cuda.matmul.fp32_precision = "tf32"
else:
    torch.set_float32_matmul_precision(products)
if convolutions == "conv alone":
    backends.cudnn.conv.fp32_precision = "ieee"
else:
    backends.cudnn.allow_tf32 = convolutions == "tf32"
backends.cudnn.benchmark = not Runtime().cudnn_benchmark

def said(read):
    try:
        return read()
    except RuntimeError:
        return "mixed"

def now():
    by_operation = [backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return (
        [one.fp32_precision for one in by_operation], said(torch.get_float32_matmul_precision),
        said(lambda: backends.cudnn.allow_tf32), said(lambda: backends.cuda.matmul.allow_tf32),
        backends.cudnn.benchmark, deterministic, fills.fill_uninitialized_memory,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )

print(now())
with configured(Runtime(deterministic=True), torch.device("cuda")):
    print(now())
print(now())
try:
    with configured(Runtime(tf32=False), torch.device("cuda")):
        raise KeyError
except KeyError:
    print(now())
"""


def test_versions_name_what_a_result_depends_on() -> None:
    found = versions()
    assert found["torch"] == torch.__version__
    assert {"fastuda", "python", "triton", "nvidia-dali-cuda130", "numpy", "pillow"} <= set(found)
    assert "missing" not in found.values()


def test_the_cpu_is_named_with_its_cores() -> None:
    assert re.fullmatch(rf"CPU, \w+, {len(os.sched_getaffinity(0))} cores?", device_name(torch.device("cpu")))
