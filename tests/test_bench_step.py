"""The ladder: each rung is the same step, its work is counted, and rows, pictures and profiles come of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from steps import SMALL
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from fastuda.data.loading.made import made_batches
from fastuda.method import contrast as contrast_module
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runtime import compiled
from fastuda.runtime.fast_path import FastPath
from fastuda_bench import ladder, step
from fastuda_bench.agreement import compared
from fastuda_bench.ladder import RUNGS, climbed, recipe_at, rungs_on
from fastuda_bench.ladder_chart import ladder_chart
from fastuda_bench.limits import Limits
from fastuda_bench.plain_operations import plain_operations
from fastuda_bench.results import Row, doubt_of
from fastuda_bench.step_table import table_of, verdict_of, with_baselines
from fastuda_bench.work import GRADIENTS, counted, iteration_work
from fastuda_cli.main import app
from fastuda_kernels.pixel_contrast import pixel_contrast

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("gta2cs", SMALL)


@pytest.fixture
def _nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rungs as they are, but for the compiler, which takes minutes."""
    quick = tuple(replace(rung, runtime={}) if rung.name == "compile" else rung for rung in RUNGS)
    monkeypatch.setattr(ladder, "RUNGS", quick)


@pytest.fixture(autouse=True)
def _switches_put_back() -> Iterator[None]:
    yield
    compiled.forget()


def test_each_rung_adds_its_own_switch_to_those_below(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    parts = ("amp", "channels_last", "compiled", "grouped", "gemm_aspp", "graphed", "flat_update", "fused_batch_norm")
    seen = []
    for rung in RUNGS:
        path = FastPath.of(recipe_at(recipe, rung).runtime, GPU)
        seen.append({part for part in parts if getattr(path, part)})
    steps = [set(), {"amp", "channels_last"}, {"compiled"}, {"grouped"}, set(), {"gemm_aspp"}, {"graphed"}]
    steps += [{"flat_update"}, {"fused_batch_norm"}]
    for below, above, added in zip([set(), *seen], seen, steps, strict=False):
        assert above - below == added
        assert below <= above
    assert seen[-1] == {part for part in parts if getattr(FastPath.of(recipe.runtime, GPU), part)}
    assert [rung.plain for rung in RUNGS] == [True] * 4 + [False] * 5
    assert [rung.name for rung in rungs_on(GPU)][-3] == "graph"
    assert "graph" not in [rung.name for rung in rungs_on(CPU)]


@pytest.mark.parametrize("name", ["gta2cs", "gta2cs-edge", "gta2cs-released", "gta2cs-fast"])
def test_the_plain_operations_are_the_same_step(name: str) -> None:
    recipe = load_recipe(name, [*SMALL, "method.tau=0.06"])
    batches = made_batches(recipe, CPU)
    with climbed(recipe, RUNGS[0], batches, CPU) as eager:
        expected = eager.call()
        assert contrast_module.pixel_contrast is not pixel_contrast
    assert contrast_module.pixel_contrast is pixel_contrast
    with climbed(recipe, replace(RUNGS[0], plain=False), batches, CPU) as fused:
        found = fused.call()
    for term, loss in expected.items():
        torch.testing.assert_close(found[term], loss, rtol=1e-4, atol=1e-5, msg=term)
    for ours, theirs in zip(fused.state.tensors(), eager.state.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_work_counts_convolutions_of_all_passes_and_the_traffic(recipe: Recipe) -> None:
    work = iteration_work(recipe, CPU)
    once = iteration_work(load_recipe("gta2cs", [*SMALL, "train.batch_size=1"]), CPU)
    assert work.flops == pytest.approx(2 * once.flops, rel=0.01)
    assert 1.3 * once.bytes < work.bytes < 2 * once.bytes, "weights and optimiser are touched once"


@pytest.mark.parametrize(("groups", "transposed"), [(1, False), (2, False), (8, False), (1, True), (2, True)])
def test_gradients_of_a_convolution_are_twice_its_operations(groups: int, transposed: bool) -> None:
    x = torch.randn(3, 8, 10, 12, requires_grad=True)
    weight = torch.randn(8, (6 if transposed else 8) // groups, 3, 3, requires_grad=True)
    convolve = F.conv_transpose2d if transposed else F.conv2d
    forward, backward = (FlopCounterMode(display=False, custom_mapping=GRADIENTS) for _ in range(2))
    with forward:
        y = convolve(x, weight, stride=2, groups=groups)
    with backward:
        y.sum().backward()
    assert backward.get_total_flops() == 2 * forward.get_total_flops() > 0


def test_work_and_roofline_of_gta2cs_are_what_was_computed_from_its_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    # Computed by hand for classifiers of two branches: 16.8 TFLOP; 39.8 ms on an H200 and about 48 on an H100.
    found = counted(load_recipe("gta2cs", ["model.aspp=[6, 12]"]), GPU)
    assert found.work.flops == pytest.approx(16.8e12, rel=0.01)
    assert 200e9 < found.work.bytes < 500e9, "in fp32"
    h200 = Limits(bytes=4.3e12, matrix=788e12, convolution=788e12, exponentials=1e12)
    h100 = Limits(bytes=3.0e12, matrix=798e12, convolution=798e12, exponentials=1e12)
    assert found.roofline_ms(h200) == pytest.approx(39.8, rel=0.08)
    assert found.roofline_ms(h100) == pytest.approx(48, rel=0.08)
    assert type(found).of_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_roofline_is_of_the_layers_alone(recipe: Recipe) -> None:
    work, (wide, narrow) = counted(recipe, CPU), (Limits(1e12, 1e9, 1e9, 1.0), Limits(1e9, 1e12, 1e12, 1.0))
    convolutions = sum(flops * count for flops, _, count in work.layers)
    assert convolutions == pytest.approx(work.work.flops, rel=0.1), "the losses' products are no layers"
    assert work.roofline_ms(wide) == pytest.approx(1000 * convolutions / 1e9, rel=0.01)
    moved = sum(moved * count for _, moved, count in work.layers)
    assert work.roofline_ms(narrow) == pytest.approx(1000 * moved / 1e9, rel=0.01)
    assert moved < work.work.bytes


@pytest.mark.usefixtures("_nothing_compiled")
def test_rows_of_every_rung_on_a_cpu(recipe: Recipe, tmp_path: Path, console_text: Any) -> None:
    rungs = tuple(rung for rung in ladder.RUNGS if rung.name != "graph")
    rows = step.step_rows(
        recipe,
        "tiny",
        made_batches(recipe, CPU),
        CPU,
        repeats=2,
        iterations=1,
        rungs=rungs,
        profile=tmp_path / "profile",
    )
    assert [row["rung"] for row in rows] == [rung.name for rung in rungs_on(CPU)]
    for row in rows:
        assert row["ms"]["repeats"] == 2
        assert row["images_per_second"] == pytest.approx(4000 / row["ms"]["median"], rel=0.01)
        assert row["mfu"] == pytest.approx(row["flops_per_second"] / row["limits"]["flops"])
        assert row["peak_bytes"] > 1e6
        assert row["launches"] is None
        assert {"gpu", "power_limit_w", "sm_clock_mhz", "driver", "versions", "commit", "date", "cores"} <= row.keys()
    text = console_text(table_of(rows))
    assert "eager-fp32" in text
    assert "× below" in text
    assert "fastest: " in verdict_of(rows)
    ladder_chart(tmp_path / "ladder.png", rows)
    assert (tmp_path / "ladder.png").read_bytes().startswith(b"\x89PNG")
    trace = json.loads((tmp_path / "profile" / "trace.json").read_text())
    assert any("conv" in str(event.get("name")) for event in trace["traceEvents"])
    listed = (tmp_path / "profile" / "operations.txt").read_text()
    assert "aten::" in listed
    assert listed.count(" % ") == 10
    assert listed.strip().startswith("fused-bn: ")


@pytest.mark.usefixtures("_nothing_compiled")
def test_a_rung_that_fails_and_one_that_computes_something_else_lose_their_own_rows_alone(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, console_text: Any
) -> None:
    from fastuda_bench import plain_operations as module

    monkeypatch.setattr(module, "_contrast", lambda p, q, *_, **__: (p - q).square().mean())
    windows = step._windows

    def fails_at_second(*arguments: Any) -> list[float]:
        if len(kept) == 2:
            raise RuntimeError("no kernel image\nis available")
        return windows(*arguments)

    monkeypatch.setattr(step, "_windows", fails_at_second)
    kept: list[list[Row]] = []
    rungs = (ladder.RUNGS[0], ladder.RUNGS[1], ladder.RUNGS[4])
    batches = made_batches(recipe, CPU)
    rows = step.step_rows(recipe, "tiny", batches, CPU, repeats=1, iterations=1, rungs=rungs, keep=kept.append)
    assert [len(those) for those in kept] == [1, 1, 2, 3, 3], "rows are kept before and after each rung's profile"
    plain, failed, other = rows
    assert (plain["disagreement"], failed["error"]) == (None, "RuntimeError: no kernel image")
    assert "ms" not in failed
    assert other["disagreement"].startswith("the loss pixel of iteration 1 is")
    assert [doubt_of(row) is None for row in rows] == [True, False, False]
    assert [(below, base) for _, below, base in with_baselines(rows)][1:] == [(None, None)] * 2
    text = console_text(table_of(rows))
    assert "failed" in text
    assert "the loss pixel" in text
    assert verdict_of(rows).startswith("fastest: eager-fp32")
    assert verdict_of([failed, other]).startswith("no rung counts")
    assert table_of([failed]).row_count == 1


@pytest.mark.usefixtures("_nothing_compiled")
def test_a_profiler_that_fails_costs_the_profile_alone(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("CUPTI is not there")

    monkeypatch.setattr(step, "write_profile", fails)
    common = {"repeats": 1, "iterations": 1, "rungs": ladder.RUNGS[:1], "limits": Limits(1e10, 1e11, 1e11, 1e9)}
    (row,) = step.step_rows(recipe, "tiny", made_batches(recipe, CPU), CPU, profile=tmp_path, **common)
    assert row["ms"]["median"] > 0
    assert doubt_of(row) is None


def test_losses_are_compared_within_the_precisions_reach_and_nan_never_is() -> None:
    def row(rung: str, *totals: float, precision: str = "float32") -> Row:
        return {"rung": rung, "precision": precision, "losses": [{"total": total} for total in totals]}

    plain = row("eager-fp32", 3.0, 3.0)
    (_, near), (_, far) = (compared([plain, row("graph", 3.2, 3.0, precision=p)]) for p in ("bfloat16", "float32"))
    assert (near["disagreement"], far["disagreement"]) == (
        None,
        "the loss total of iteration 1 is 3.20000, that of eager-fp32 3.00000",
    )
    _, nan = compared([plain, row("graph", 3.0, float("nan"))])
    assert nan["disagreement"].startswith("the loss total of iteration 2 is nan")
    (alone,) = compared([row("graph", 3.0, 3.0)])
    assert alone["disagreement"] == "not compared"
    assert doubt_of(alone) is None


@pytest.mark.parametrize("words", [["--set", "runtime.compile=false"], ["--source", "somewhere"]])
def test_what_the_ladder_would_not_heed_is_refused(words: list[str]) -> None:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    result = CliRunner().invoke(app, ["bench", "step", "gta2cs", "--device", "cpu", *settings, *words])
    assert result.exit_code == 2, result.output
    assert words[1].partition("=")[0] in result.output or "--prepared" in result.output


def test_doubtful_figures_are_called_so() -> None:
    row = {"rung": "eager-fp32", "ms": {"median": 10.0, "spread": 1.0}, "mfu": 0.5, "images_per_second": 400.0}
    assert "noisy" not in verdict_of([row])
    assert "noisy" in verdict_of([{**row, "mfu": 1.4}])
    assert "noisy" in verdict_of([{**row, "ms": {"median": 10.0, "spread": 9.0}}])


def test_plain_operations_leave_nothing_behind_when_they_fail() -> None:
    with pytest.raises(RuntimeError, match="inside"), plain_operations():
        raise RuntimeError("inside")
    assert contrast_module.pixel_contrast is pixel_contrast


@pytest.mark.parametrize("prepared", [True, False])
def test_the_command_writes_rows_and_a_chart(prepared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "rungs_on", lambda device: RUNGS[:3])
    monkeypatch.setattr(step, "measured_limits", lambda device: Limits(1e10, 1e11, 1e11, 1e9))
    demo = ["demo.num_source=2", "demo.num_source_val=1", "demo.num_target=2", "demo.num_val=1", "demo.size=[64, 32]"]
    own = ["views.source_size=[64, 32]", "eval.size=[64, 32]", "runtime.loader_threads=1", f"data.cache={tmp_path}"]
    settings = [part for setting in (*SMALL, *demo, *own) for part in ("--set", setting)]
    out, chart = tmp_path / "step.json", tmp_path / "step.png"
    rungs = ["--rung", "amp-nhwc", "--rung", "eager-fp32"]
    words = ["bench", "step", "demo", "--device", "cpu", "--repeats", "1", "--iterations", "1", *rungs, *settings]
    result = CliRunner().invoke(
        app, [*words, "--json", str(out), "--chart", str(chart), *(["--prepared"] if prepared else [])]
    )
    assert result.exit_code == 0, result.output
    assert [row["rung"] for row in json.loads(out.read_text())] == ["eager-fp32", "amp-nhwc"]
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_a_rung_that_there_is_not_is_named() -> None:
    result = CliRunner().invoke(app, ["bench", "step", "demo", "--device", "cpu", "--rung", "graph"])
    assert result.exit_code == 2
    assert "on this device there are eager-fp32, amp-nhwc" in result.output


def test_a_rung_that_fails_makes_the_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: Any) -> list[float]:
        raise RuntimeError("broken")

    monkeypatch.setattr(step, "_windows", fails)
    monkeypatch.setattr(step, "measured_limits", lambda device: Limits(1e10, 1e11, 1e11, 1e9))
    settings = [part for setting in SMALL for part in ("--set", setting)]
    chart, words = tmp_path / "step.png", ["bench", "step", "gta2cs", "--device", "cpu", "--rung", "eager-fp32"]
    result = CliRunner().invoke(app, [*words, "--chart", str(chart), *settings])
    assert result.exit_code == 1, result.output
    assert "RuntimeError: broken" in result.output
    assert not chart.exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_last_rung_is_a_graph_with_few_launches(recipe: Recipe) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    rungs = (RUNGS[0], RUNGS[-1])
    rows = step.step_rows(recipe, "tiny", made_batches(recipe, device), device, repeats=2, iterations=5, rungs=rungs)
    assert [row["way"] for row in rows] == ["eager", "compiled graph"]
    assert rows[1]["launches"] < 40 < rows[0]["launches"]
