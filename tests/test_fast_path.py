"""What the recipe's speed switches come to on a CPU and on a GPU, each alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.place import placed
from fastuda.recipe import Runtime
from fastuda.runtime.fast_path import FastPath, declined

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SWITCHES = {
    "grouped": "grouped",
    "gemm_aspp": "gemm_aspp",
    "fused_batch_norm": "fused_batch_norm",
    "flat_update": "flat_update",
    "compile": "compiled",
    "cuda_graph": "graphed",
}
PARTS = tuple(SWITCHES.values())


@pytest.fixture(autouse=True)
def _with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


def on(path: FastPath) -> set[str]:
    return {part for part in PARTS if getattr(path, part)}


def test_a_gpu_gets_everything_and_a_cpu_the_plain_way() -> None:
    assert on(FastPath.of(Runtime(), GPU)) == set(PARTS)
    assert FastPath.of(Runtime(), GPU).amp == torch.bfloat16
    assert on(FastPath.of(Runtime(), CPU)) == set()
    assert FastPath.of(Runtime(), CPU).amp is None
    assert FastPath.of(Runtime(), CPU).channels_last


@pytest.mark.parametrize(("switch", "part"), SWITCHES.items())
def test_each_part_can_be_off_alone(switch: str, part: str) -> None:
    settings: Any = {switch: False}
    assert on(FastPath.of(Runtime(**settings), GPU)) == set(PARTS) - {part}


@pytest.mark.parametrize(("switch", "part"), [pair for pair in SWITCHES.items() if pair[0] != "cuda_graph"])
def test_a_cpu_does_what_it_is_told(switch: str, part: str) -> None:
    settings: Any = {switch: True}
    assert on(FastPath.of(Runtime(**settings), CPU)) == {part}


def test_what_a_cpu_cannot_do_is_declined_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False}, raising=False)
    asked = Runtime(cuda_graph=True, amp="bf16")
    assert not FastPath.of(asked, CPU).graphed
    graph, amp = declined(asked, CPU)
    assert "no CUDA graphs on a CPU" in graph
    assert amp == "runtime.amp = bf16: no instructions for it are known of this CPU; computed in fp32"
    assert FastPath.of(asked, CPU).amp is None
    (half,) = declined(Runtime(amp="fp16"), CPU)
    assert "fp16" in half
    assert declined(Runtime(), CPU) == declined(asked, GPU) == []


@pytest.mark.parametrize(
    ("amp", "expected", "scaled"),
    [
        ("auto", torch.bfloat16, False),
        ("bf16", torch.bfloat16, False),
        ("fp16", torch.float16, True),
        ("none", None, False),
    ],
)
def test_precision_on_a_gpu(amp: Any, expected: torch.dtype | None, scaled: bool) -> None:
    path = FastPath.of(Runtime(amp=amp), GPU)
    assert (path.amp, path.scaled) == (expected, scaled)


def test_a_loss_scaler_keeps_torchs_own_optimiser() -> None:
    assert not FastPath.of(Runtime(amp="fp16"), GPU).flat_update
    (said,) = declined(Runtime(amp="fp16", flat_update=True), GPU)
    assert "whose loss scaler needs torch's own optimiser" in said


@pytest.mark.parametrize("amp", ["auto", "fp16", "none"])
def test_a_cpu_computes_in_fp32_where_bf16_is_not_asked_for(amp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert FastPath.of(Runtime(amp=amp), CPU).amp is None


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_cpu_with_instructions_for_bf16_computes_in_it_when_asked(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True}, raising=False)
    path = FastPath.of(Runtime(amp="bf16"), CPU)
    assert (path.amp, path.scaled) == (torch.bfloat16, False)
    assert declined(Runtime(amp="bf16"), CPU) == []


def test_without_a_list_of_its_instructions_a_cpu_computes_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert FastPath.of(Runtime(amp="bf16"), CPU).amp is None


def test_without_bf16_fp16_is_scaled_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    path = FastPath.of(Runtime(), GPU)
    assert (path.amp, path.scaled) == (torch.float16, True)
    assert "no bf16" in declined(Runtime(), GPU)[0]
    assert declined(Runtime(amp="fp16"), GPU) == []


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_placed_model_has_the_paths_format_and_classifiers(channels_last: bool) -> None:
    path = FastPath.of(Runtime(channels_last=channels_last, gemm_aspp=True), CPU)
    model = placed(DeepLabV2(5, depth=18, width=0.0625), path, CPU)
    weight = model.backbone.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert model.head.gemm
