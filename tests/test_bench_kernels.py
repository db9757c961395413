"""The kernel bench: its clocks, its memory gauge, its baselines, and its command."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from formulas import dense_contrast, dense_cross_entropy
from typer.testing import CliRunner

from fastuda_bench import formulas, kernels
from fastuda_bench.chart import bar_chart
from fastuda_bench.draw import drawn
from fastuda_bench.kernel_cases import cases
from fastuda_bench.limits import Limits, Work, measured_limits
from fastuda_bench.memory import peak_extra_bytes
from fastuda_bench.timing import measure
from fastuda_cli.main import app
from fastuda_kernels.pixel_contrast.reference import blockwise_contrast
from fastuda_kernels.pseudo_label import argmax_confusion, pseudo_label

CPU = torch.device("cpu")


def test_a_repeat_is_the_mean_of_its_calls() -> None:
    times = measure(lambda: time.sleep(0.02), CPU, 2)
    assert len(times.milliseconds) == 2
    assert all(20 <= value < 200 for value in times.milliseconds)
    assert not times.captured


def test_memory_at_the_peak_is_seen_though_it_is_freed() -> None:
    def allocate() -> None:
        torch.ones(25_000_000)

    extra = peak_extra_bytes(allocate, CPU)
    assert extra is not None
    assert 90e6 < extra < 130e6


def test_the_blockwise_contrast_needs_a_fraction_of_the_dense_formulas_memory() -> None:
    first, second = (torch.randn(1, 1600, 19, generator=torch.Generator().manual_seed(s)) for s in (0, 1))

    def gradient(function: Any) -> None:
        p = first.softmax(-1).requires_grad_()
        function(p, second).backward()

    dense = peak_extra_bytes(lambda: gradient(lambda p, q: formulas.dense_contrast(p, q, 20.0)), CPU)
    blocks = peak_extra_bytes(lambda: gradient(lambda p, q: blockwise_contrast(p, q, 20.0, None)), CPU)
    assert dense is not None
    assert blocks is not None
    assert dense > 2 * 3200**2 * 4
    assert blocks < dense / 3


def test_the_baselines_are_the_operations() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(2, 9, 5, generator=generator) for _ in range(2))
    exact = dense_contrast(first.double().softmax(-1), second.double().softmax(-1), 20.0)
    assert formulas.dense_contrast(first, second, 20.0).item() == pytest.approx(exact.item(), rel=1e-5)
    logits, labels = torch.randn(2, 5, 3, 4, generator=generator), torch.randint(0, 5, (2, 9, 8), generator=generator)
    labels[0, 0] = 255
    exact = dense_cross_entropy(logits.double(), labels, labels != 255, None, True)
    assert formulas.upsampled_cross_entropy(logits, labels).item() == pytest.approx(exact.item(), rel=1e-5)
    weight = torch.rand(labels.shape, generator=generator)
    exact = dense_cross_entropy(logits.double(), labels, labels != 255, weight.double(), True)
    assert formulas.upsampled_cross_entropy(logits, labels, weight).item() == pytest.approx(exact.item(), rel=1e-5)
    boxes = torch.tensor([[1.0, 2.0, 5.0, 4.0], [0.0, 0.0, 9.0, 8.0]])
    ours, expected = (
        formulas.cropped_pseudo_label(logits, (9, 8), boxes, (6, 6)),
        pseudo_label(logits, (6, 6), view_size=(9, 8), boxes=boxes),
    )
    assert torch.equal(ours[0], expected[0])
    torch.testing.assert_close(ours[1], expected[1])
    exact = dense_cross_entropy(logits.double(), labels, labels != 255, None, False)
    found = formulas.upsampled_cross_entropy(logits, labels, align_corners=False)
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)
    ours = formulas.cropped_pseudo_label(logits, (9, 8), boxes, (6, 6), align_corners=False)
    expected = pseudo_label(logits, (6, 6), view_size=(9, 8), boxes=boxes, align_corners=False)
    assert torch.equal(ours[0], expected[0])
    torch.testing.assert_close(ours[1], expected[1])
    whole = labels.to(torch.uint8)
    for corners in (True, False):
        counts = argmax_confusion(logits, whole, align_corners=corners)
        assert torch.equal(formulas.upsampled_confusion(logits, whole, corners), counts)


def test_the_slowest_part_of_the_work_is_the_limit() -> None:
    limits = Limits(bytes=1e9, matrix=1e12, convolution=1e11, exponentials=1e10)
    assert limits.milliseconds(Work(bytes=1e6)) == pytest.approx(1)
    assert limits.milliseconds(Work(bytes=1e6, flops=1e10)) == pytest.approx(10)
    assert limits.milliseconds(Work(bytes=1e6, flops=1e10, exponentials=1e9)) == pytest.approx(100)


def test_a_cpus_limits_are_within_reason() -> None:
    limits = measured_limits(CPU)
    assert 1e8 < limits.bytes < 1e12
    assert limits.flops == max(limits.matrix, limits.convolution)
    assert min(limits.matrix, limits.convolution) > 1e8
    assert limits.flops < 1e14
    assert Limits.of_json(limits.to_json()) == limits
    assert 1e6 < limits.exponentials < 1e12


def test_rows_hold_what_is_needed_to_compare_them_later() -> None:
    rows = kernels.kernel_rows(CPU, repeats=2, small=True)
    assert {row["operation"] for row in rows} == {case.operation for case in cases(CPU, small=True)}
    assert {row["implementation"] for row in rows} == {"eager", "reference", "unpadded", "padded"}
    assert [row for row in rows if row["disagreement"] is not None] == []
    for row in rows:
        assert row["both"]["repeats"] == 2
        assert row["both"]["median"] > 0
        assert 0 < row["share_of_limit"] < 1.5
        assert {"cpu", "gpu", "versions", "commit", "date", "limits", "peak_extra_bytes"} <= row.keys()
        assert (row["forward"] is None) == (row["operation"] in ("pseudo_label", "argmax_confusion", "masked_mix"))
    assert kernels.speedup(rows[0], rows) == 1


def test_what_disagrees_or_fails_loses_its_own_row_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, console_text: Any
) -> None:
    dense = formulas.dense_contrast
    monkeypatch.setattr(formulas, "dense_contrast", lambda *arguments: dense(*arguments) + 0.1)
    broken = cases(CPU, small=True)[1]

    def fails() -> None:
        raise RuntimeError("out of memory")

    chosen = [
        cases(CPU, small=True)[0],
        replace(broken, implementations={**broken.implementations, "eager": fails}),
        cases(CPU, small=True)[3],
    ]
    monkeypatch.setattr(kernels, "cases", lambda device, **_: chosen)
    kept: list[int] = []
    limits = Limits(1e10, 1e11, 1e11, 1e9)
    rows = kernels.kernel_rows(CPU, repeats=1, limits=limits, keep=lambda rows: kept.append(len(rows)))
    assert kept == [1, 2, 3, 4, 5, 6]
    assert rows[1]["disagreement"].startswith("its result is not eager's")
    assert rows[2]["error"] == "RuntimeError: out of memory"
    assert rows[3]["disagreement"] == "not compared"
    assert [row.get("disagreement") for row in rows[4:]] == [None, None]
    assert [kernels.speedup(row, rows) is None for row in rows] == [False, True, True, True, False, False]
    text = console_text(kernels.table_of(rows))
    assert "pixel_contrast by reference: its result is not eager's" in text
    assert drawn(bar_chart, tmp_path / "bars.png", rows, print)


def test_the_command_writes_rows_and_a_chart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = kernels.cases
    monkeypatch.setattr(kernels, "cases", lambda device, **_: small(device, small=True)[:2])
    out, chart = tmp_path / "kernels.json", tmp_path / "kernels.png"
    result = CliRunner().invoke(
        app, ["bench", "kernels", "--device", "cpu", "--repeats", "1", "--json", str(out), "--chart", str(chart)]
    )
    assert result.exit_code == 0, result.output
    assert "pixel_contrast" in result.output
    assert [row["question"] for row in json.loads(out.read_text())] == ["kernels"] * 4
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_row_is_of_a_captured_graph() -> None:
    rows = kernels.kernel_rows(torch.device("cuda"), repeats=2, compiled=False, small=True)
    triton = [row for row in rows if row["implementation"] == "triton"]
    assert {row["operation"] for row in triton} == {row["operation"] for row in rows} - {"classifier"}
    assert all(row["captured"] for row in triton)
