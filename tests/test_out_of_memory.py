"""Memory that runs out, the GPU's or the machine's: one error that says what, how much, who, and what to lower."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from steps import AS_IT_IS, PLAIN, batches, begin, tiny

import fastuda.data.packing.prepare as prepare_module
import fastuda.evaluation.load as load_module
import fastuda.evaluation.model as model_module
import fastuda.evaluation.scoring as scoring_module
import fastuda.evaluation.target_statistics as batch_norm_module
import fastuda.memory.out_of_memory as out_of_memory_module
import fastuda.model.weights as weights_module
import fastuda.runs.checkpoint.writer as writer_module
import fastuda.training.cuda_graph as cuda_graph_module
import fastuda.training.iteration as iteration_module
import fastuda.training.loop as loop_module
import fastuda.training.run as train_module
from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.packing.pack import Packed
from fastuda.errors import FastudaError
from fastuda.evaluation.model import Model
from fastuda.evaluation.predict import Input, predict
from fastuda.evaluation.scoring import scored
from fastuda.evaluation.target_statistics import gather_statistics
from fastuda.memory.estimate import TrainingWork
from fastuda.memory.out_of_memory import is_out_of_memory, memory_told
from fastuda.memory.savings import Saving
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe
from fastuda.report.display import Display
from fastuda.runs.checkpoint.notes import Notes
from fastuda.runs.checkpoint.store import CheckpointStore
from fastuda.runs.checkpoint.writer import CheckpointWriter
from fastuda.training.cuda_graph import CaptureError, capture
from fastuda.training.iteration import Iteration
from fastuda.training.loop import Loop
from fastuda.training.run import train

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
GIB = 2**30
FULL_GPU = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139 GiB"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2)"),
]
FULL_HOST = [
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 21474836480 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 21474836480 bytes."),
    RuntimeError("could not map: Cannot allocate memory"),
    MemoryError(),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ValueError("out of memory"),
]


def named(error: BaseException) -> str:
    return str(error)[:40] or type(error).__name__


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates that take no time."""
    monkeypatch.setattr(out_of_memory_module, "estimate", lambda *_: 9 * GIB)
    monkeypatch.setattr(out_of_memory_module, "savings", lambda *_: [Saving("--set train.batch_size=1", 5 * GIB)])


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says of a GPU of 140 GiB: 12 are this process's, 1 is free."""
    figures = {
        "max_memory_allocated": 11 * GIB,
        "max_memory_reserved": 13 * GIB,
        "memory_reserved": 12 * GIB,
        "mem_get_info": (GIB, 140 * GIB),
        "get_device_name": "NVIDIA H200",
    }
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)


def told(error: BaseException, work: Any, recipe: Recipe | None, device: torch.device) -> list[str]:
    with pytest.raises(FastudaError) as caught, memory_told(work, recipe, device):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value).splitlines()


@pytest.mark.parametrize("error", [*FULL_GPU, *FULL_HOST], ids=named)
def test_full_memory_is_known_by_what_it_says(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=named)
def test_other_errors_stay_what_they_are(error: BaseException) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, memory_told("adaptation", tiny("gta2cs"), CPU):
        raise error
    assert caught.value is error


@pytest.mark.usefixtures("quick", "gpu")
@pytest.mark.parametrize("error", FULL_GPU, ids=named)
def test_a_full_gpu_is_told_whole(error: BaseException) -> None:
    lines = told(error, "adaptation", tiny("gta2cs"), GPU)
    asked = "20.00 GiB more" if "20.00" in str(error) else f"more ({type(error).__name__}: {error})"
    assert lines == [
        f"the GPU's memory is full: an adaptation iteration of batch 2 asked for {asked}",
        "needed: about 9.0 GiB; reached: 11.0 GiB allocated, 13.0 GiB reserved at the peak",
        "the GPU (NVIDIA H200): 140.0 GiB, of which torch holds 12.0 GiB here, other processes and this one's CUDA and "
        "DALI 127.0 GiB, and 1.0 GiB are free",
        "to lower, what saves most first, and the estimate that it gives:",
        "  --set train.batch_size=1 (about 5.0 GiB)",
        "a run that has begun keeps its recipe: free memory and go on from its last checkpoint with --resume, or begin "
        "it anew, in another folder, with other values",
    ]


@pytest.mark.usefixtures("quick", "gpu")
@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
@pytest.mark.parametrize("error", FULL_HOST, ids=named)
def test_the_machines_memory_is_told_from_the_gpus(error: BaseException, device: torch.device) -> None:
    lines = told(error, "warm-up", tiny("gta2cs"), device)
    asked = "20.0 GiB more" if "21474836480" in str(error) else "more ("
    assert lines[0].startswith(f"this machine's memory is full: a warm-up iteration of batch 2 asked for {asked}")
    assert "resident at the peak" in lines[1]
    assert lines[2].startswith("this machine: ")
    assert "GPU" not in "".join(lines)


@pytest.mark.usefixtures("quick")
def test_a_machine_that_does_not_say_how_much_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory_module, "_MEMINFO", tmp_path / "none")
    lines = told(MemoryError(), "adaptation", tiny("gta2cs"), CPU)
    assert lines[2].startswith("this machine does not say how much memory it has")


@pytest.mark.usefixtures("quick")
def test_a_gpu_that_answers_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", raising(RuntimeError("CUDA error: unspecified failure")))
    lines = told(FULL_GPU[0], "adaptation", tiny("gta2cs"), GPU)
    assert lines[1:3] == [
        "needed: about 9.0 GiB; reached: not known", "the GPU says no more (CUDA error: unspecified failure)"
    ]  # fmt: skip


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("error", [FULL_HOST[0], MemoryError()], ids=named)
def test_no_room_for_an_estimate_costs_the_estimate_alone(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out_of_memory_module, "estimate", raising(error))
    lines = told(FULL_GPU[0], "adaptation", tiny("gta2cs"), GPU)
    assert lines[1].startswith("needed: not estimated; reached: 11.0 GiB")
    assert len(lines) == 4


@pytest.mark.usefixtures("quick", "gpu")
def test_a_model_that_does_not_fit_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(load_module, "read_model", raising(FULL_GPU[0]))
    monkeypatch.setattr(load_module, "choose_device", lambda _: GPU)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FastudaError) as caught:
        load_module.load(tmp_path / "model.safetensors", device="cuda")
    lines = str(caught.value).splitlines()
    assert "needed: not estimated" in lines[1]
    assert "--recipe FILE" in lines[-1]
    assert "--device cpu" in lines[-1]
    assert "--resume" not in "".join(lines)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("step", "work"), [("adaptation_step", "adaptation"), ("warmup_step", "warm-up")])
@pytest.mark.parametrize("error", [FULL_GPU[0], FULL_GPU[1], FULL_GPU[2], FULL_HOST[0]], ids=named)
def test_an_iteration_tells(step: str, work: TrainingWork, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("gta2cs")
    monkeypatch.setattr(iteration_module, step, raising(error))
    given = batches(recipe)[: 1 if work == "warm-up" else 2]
    with pytest.raises(FastudaError, match=f"memory is full: an? {work} iteration of batch 2 asked for"):
        Iteration(begin(recipe), recipe, AS_IT_IS, PLAIN, work)(*given)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [FULL_GPU[0], FULL_GPU[1], FULL_HOST[0]], ids=named)
def test_a_trial_of_the_compiler_that_fills_the_memory_is_no_missing_compiler(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny("gta2cs")
    monkeypatch.setattr(iteration_module, "adaptation_step", raising(error))
    with pytest.raises(FastudaError, match="memory is full"):
        Iteration(begin(recipe), recipe, AS_IT_IS, replace(PLAIN, compiled=True))(*batches(recipe))
    assert "torch.compile failed" not in caplog.text


@pytest.mark.parametrize("error", [*FULL_GPU[:3], OTHERS[0]], ids=named)
def test_a_capture_hands_on_full_memory_and_nothing_else(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph_module, "_settle", lambda: None)
    monkeypatch.setattr(cuda_graph_module, "_warm_up", lambda step, stream: step())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    for name in ("current_stream", "set_stream", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    recipe = tiny("gta2cs")
    expected = type(error) if is_out_of_memory(error) else CaptureError
    with pytest.raises(expected) as caught:
        capture(raising(error), begin(recipe), batches(recipe))
    assert (caught.value is error) == is_out_of_memory(error)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("work", ["adaptation", "warm-up"])
def test_a_loader_that_finds_no_memory_tells(work: TrainingWork, monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty:
        def __next__(self) -> Any:
            raise FULL_GPU[4]

    monkeypatch.setattr(loop_module, "TrainingLoader", lambda *_, **__: Empty())
    monkeypatch.setattr(loop_module, "numbers", lambda *_: {})
    domains = {"source": ("source", None), "target": ("target", None)}
    recipe, data = tiny("gta2cs"), SimpleNamespace(trained_on=lambda adapts: domains)
    loop = Loop(begin(recipe), data, recipe, AS_IT_IS, PLAIN, work)  # type: ignore[arg-type]
    with pytest.raises(FastudaError, match=f"an? {work} iteration of batch 2 asked for more"):
        loop()


@pytest.fixture
def packed(pack: Callable[..., Packed], tiny_recipe: Callable[..., Recipe]) -> tuple[Packed, Recipe]:
    recipe = tiny_recipe("eval.size=[32, 16]")
    picture, label = np.zeros((16, 32, 3), np.uint8), np.zeros((16, 32), np.uint8)
    return pack(recipe, [picture], [label], size=(32, 16), own_label_size=True), recipe


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [FULL_GPU[0], FULL_GPU[1], FULL_HOST[0]], ids=named)
def test_an_evaluation_tells(error: Exception, packed: tuple[Packed, Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    split, recipe = packed
    monkeypatch.setattr(scoring_module, "evaluation_logits", raising(error))
    with pytest.raises(FastudaError, match="an evaluation of batch 3 asked for") as caught:
        scored(build_network(recipe).eval(), EvaluationLoader(split, 3, 1, CPU), recipe, AS_IT_IS)
    lines = str(caught.value).splitlines()
    assert ", besides what else this process holds" in lines[1]
    assert "--resume" in lines[-2]
    assert "--recipe FILE" in lines[-1]
    monkeypatch.setattr(batch_norm_module, "update_bn", raising(error))
    with pytest.raises(FastudaError, match="an evaluation of batch 4 asked for"):
        gather_statistics(build_network(recipe), split, recipe, AS_IT_IS, CPU)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [FULL_GPU[0], FULL_GPU[1], FULL_HOST[0]], ids=named)
def test_a_prediction_tells(
    error: Exception, tmp_path: Path, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe("eval.size=[32, 16]")
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    trained = Model(build_network(recipe).eval(), recipe, Passes.of(recipe, CPU), CPU, tmp_path / "none")
    monkeypatch.setattr(model_module, "evaluation_logits", raising(error))
    with pytest.raises(FastudaError, match="a prediction of batch 1 asked for"):
        predict(trained, [Input(tmp_path / "a.png", "a")], tmp_path / "out", lambda *_: None)


def test_the_wait_is_said(caplog: pytest.LogCaptureFixture, quick: None) -> None:
    with caplog.at_level(logging.WARNING):
        told(MemoryError(), "adaptation", tiny("gta2cs"), CPU)
    assert "this machine's memory is full; estimating what would need less" in caplog.text


def test_a_process_that_may_have_little_memory_says_so() -> None:
    code = """
import resource, torch
from fastuda.memory.out_of_memory import memory_told
from fastuda.errors import FastudaError
limit = 2**40
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    with memory_told("prediction", None, torch.device("cpu")):
        torch.empty(2**42, dtype=torch.uint8)
except FastudaError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "this machine's memory is full: a prediction of batch 1 asked for 4096.0 GiB more" in done.stdout
    assert "this process may have 1024.0 GiB (ulimit -v)" in done.stdout


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (FULL_GPU[0], "the GPU's memory is full"),
        (FULL_GPU[1], "the GPU's memory is full"),
        (
            RuntimeError("CUDA error: out of memory"),
            "the GPU's memory, or this machine's that is pinned for it, is full",
        ),
        *((error, "this machine's memory is full") for error in FULL_HOST),
    ],
    ids=named,
)
@pytest.mark.parametrize("place", ["take_snapshot", "save"])
def test_a_checkpoint_that_finds_no_memory_tells_in_one_line(
    place: str, error: BaseException, whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("gta2cs")
    monkeypatch.setattr(writer_module if place == "take_snapshot" else weights_module, place, raising(error))
    doing = "copying the state for a checkpoint" if place == "take_snapshot" else "writing a checkpoint"
    with pytest.raises(FastudaError) as caught, CheckpointWriter(CheckpointStore(tmp_path)) as writer:
        writer.write(begin(recipe), "adapted", 3, Notes(warmup=True))
    message = str(caught.value)
    assert message.startswith(f"{whose}: {doing} asked for ")
    assert message.endswith("; earlier checkpoints stay: free memory and go on with --resume")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_packing_that_finds_no_memory_names_the_sample(
    pack: Callable[..., Packed], tiny_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, encode = np.zeros((16, 32, 3), np.uint8), prepare_module.pack_sample

    def full(sample: Any, *rest: Any) -> Any:
        if sample.name == "001":
            raise MemoryError
        return encode(sample, *rest)

    monkeypatch.setattr(prepare_module, "pack_sample", full)
    with pytest.raises(FastudaError) as caught:
        pack(tiny_recipe(), [picture] * 3)
    assert str(caught.value) == (
        f"{tmp_path}/files/images/001.png: this machine's memory is full where the sample is to be packed; what is "
        "packed stays: free memory and run again, which goes on from there"
    )
    monkeypatch.undo()
    assert len(pack(tiny_recipe(), [picture] * 3)) == 3


@pytest.mark.parametrize("error", [FULL_GPU[0], MemoryError()], ids=named)
def test_wherever_else_a_run_finds_no_memory_it_ends_in_one_line(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "_train", raising(error))
    with pytest.raises(FastudaError, match=r"memory is full: the run asked for .*go on with --resume$"):
        train(tiny("gta2cs"), tmp_path / "run", name="gta2cs", device="cpu", display=Display(Console()))
