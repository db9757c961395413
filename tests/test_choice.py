"""Which implementation runs, and what is said when Triton does not work."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastuda_kernels import choice
from fastuda_kernels.operators import INTERPRETED, kernel_op
from fastuda_kernels.pixel_contrast import pixel_contrast
from fastuda_kernels.upsample_cross_entropy import upsample_cross_entropy


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    choice._tried.cache_clear()
    yield
    choice._tried.cache_clear()


def on_gpu(dtype: torch.dtype = torch.float32) -> Any:
    """What `runs_triton` looks at of a tensor on the first GPU."""
    return SimpleNamespace(is_cuda=True, dtype=dtype, device=torch.device("cuda", 0))


def test_cpu_tensors_and_fp64_go_to_the_reference() -> None:
    assert not choice.runs_triton(torch.zeros(1))
    assert not choice.runs_triton(on_gpu(torch.float64))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine on which a GPU kernel fails")
def test_a_gpu_on_which_triton_fails_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert [choice.runs_triton(on_gpu()) for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1
    assert "Triton does not work on GPU 0 (" in caplog.text
    assert "references run instead" in caplog.text


def test_a_kernel_that_writes_nothing_does_not_count_as_working(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Idle:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda probe: None

    zeros = torch.zeros
    monkeypatch.setattr(choice.torch, "zeros", lambda *shape, dtype, device: zeros(*shape, dtype=dtype))
    monkeypatch.setattr(choice, "_one_kernel", Idle())
    assert not choice.runs_triton(on_gpu())
    assert "a kernel wrote nothing" in caplog.text


def test_where_the_kernel_runs_triton_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros, device = torch.zeros, "cpu" if INTERPRETED else "cuda"
    monkeypatch.setattr(choice.torch, "zeros", lambda *shape, dtype, **_: zeros(*shape, dtype=dtype, device=device))
    assert choice.runs_triton(on_gpu())


def test_the_choice_is_a_constant_to_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_tried", lambda index: True)
    compiled = torch.compile(lambda x: x + 1 if choice._works(0) else x - 1, fullgraph=True, backend="eager")
    assert compiled(torch.zeros(1)).item() == 1


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
def test_public_functions_compile_without_a_graph_break_on_a_gpu() -> None:
    logits = torch.randn(2, 5, 7, 9, device="cuda", requires_grad=True)
    labels = torch.zeros(2, 50, 60, dtype=torch.uint8, device="cuda")

    def losses(z: torch.Tensor) -> torch.Tensor:
        rows = z.flatten(2).transpose(1, 2)
        return upsample_cross_entropy(z, labels) + pixel_contrast(rows, rows.flip(1), from_logits=True)

    compiled = torch.compile(losses, fullgraph=True)
    torch.testing.assert_close(compiled(logits), losses(logits))


def test_a_capture_without_a_trial_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(choice.torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="call each operation once before capturing a CUDA graph"):
        choice.runs_triton(on_gpu())


def test_an_operators_shapes_are_those_it_is_traced_with() -> None:
    def doubled_shape(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty(2 * x.shape[0])

    @kernel_op("fastuda_test::doubled", doubled_shape)
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x])

    assert doubled(torch.ones(3)).tolist() == [1.0] * 6
    assert doubled(torch.ones(3, device="meta")).shape == (6,)
