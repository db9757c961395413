"""The compiled step: no graph break in any recipe, nothing compiled twice, and the plain step's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch._inductor.config
from compiled_steps import hold_to_plain, traced_alone
from steps import AS_IT_IS, PLAIN, STEPS, batches, begin, tiny
from torch import Tensor
from torch._dynamo.utils import counters

import fastuda.model.deeplab.resnet as resnet_module
import fastuda.runtime.compiled as compiled_module
from fastuda.data.loading.batch import DomainBatch
from fastuda.method.state import TrainingState
from fastuda.method.term import Losses
from fastuda.model.passes import Passes
from fastuda.model.place import placed
from fastuda.runtime.compiled import compiled
from fastuda.runtime.fast_path import FastPath
from fastuda.training.iteration import Iteration

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]
COMPILED = replace(AS_IT_IS, compiled=True, grouped=True)


@pytest.fixture(autouse=True)
def _small_and_fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks of one block a stage, code of one lane, and none left from other tests or for them."""
    monkeypatch.setitem(resnet_module.BLOCKS, 18, (1, 1, 1, 1))
    torch.compiler.reset()
    compiled_module._compiled.cache_clear()
    counters.clear()
    with torch._inductor.config.patch({"cpp.simdlen": 1}):  # vector code takes the compiler half as long again
        yield
    torch.compiler.reset()
    compiled_module._compiled.cache_clear()


@pytest.fixture
def _traced_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with traced_alone(monkeypatch):
        yield


CLASS_BALANCED = ('mix.pseudo_labels="confident"', 'method.confident="class-balanced"')
VARIANTS = [
    *((name, ()) for name in STEPS),
    ("gta2cs", ('method.running_statistics="views"', 'method.teacher_batch_norm="running"')),
    ("gta2cs", ('method.student_batch_norm="running"', *CLASS_BALANCED)),
    ("gta2cs", ('contrast.on="hts"',)),
    ("gta2cs", ("model.auxiliary=false",)),
    ("gta2cs+dsp-soft", ()),
]


def test_equal_gradients_of_compiled_code_do_not_add_up_in_one_buffer() -> None:
    torch.manual_seed(0)
    state, features = begin(tiny("gta2cs")), torch.randn(2, 64, 5, 6)
    head = state.student.head
    head.gemm = True  # its branches' biases are added to one another, so that their gradients are equal
    for _ in range(2):
        state.backward(compiled(head.forward)(features).square().mean())
    found = [branch.bias.grad for branch in head.branches]
    head.zero_grad()
    for _ in range(2):
        head(features).square().mean().backward()
    for ours, branch in zip(found, head.branches, strict=True):
        torch.testing.assert_close(ours, branch.bias.grad)


@pytest.mark.usefixtures("_traced_alone")
@pytest.mark.parametrize(
    ("name", "settings", "everything"),
    [
        *((*variant, False) for variant in VARIANTS),
        *(("gta2cs", (), True), ("gta2cs-edge", (), True), ("gta2cs+mic", (), True)),
    ],
)
def test_both_steps_compile_without_a_break_and_only_once(
    name: str, settings: tuple[str, ...], everything: bool
) -> None:
    recipe = tiny(name, *settings)
    plain, student = begin(recipe), begin(recipe).student
    student.set_fused_batch_norm(everything)
    student.set_gemm_aspp(everything)
    decay = recipe.method.ema_decay
    state = TrainingState.begin(
        student,
        recipe.train.optimizer,
        plain.schedule.num_iterations,
        decay,
        ema_rises=recipe.method.ema_rises,
        flat=everything,
        reference=plain.reference,
    )
    source, target = batches(recipe)
    hold_to_plain((state, COMPILED), (plain, AS_IT_IS), source, target, recipe, rtol=1e-3, atol=1e-4)
    num_graphs = counters["stats"]["unique_graphs"]
    assert num_graphs >= 3 + everything, "the network, the loss of the source, of the mixed images, the flat update"


def test_a_break_is_an_error() -> None:
    def broken(value: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return value

    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(broken)(torch.ones(3))


def test_a_function_is_compiled_once() -> None:
    assert compiled(len) is compiled(len)


def learnable(batch: DomainBatch) -> DomainBatch:
    """The same batch with labels in bands and images that show them."""

    def bands(image: Tensor) -> Tensor:
        return (torch.arange(image.shape[2]) // 8).to(torch.uint8).expand(image.shape[:3]).contiguous()

    def coloured(image: Tensor) -> Tensor:
        return (40 * bands(image)[..., None] + image // 8).contiguous()

    assert batch.view is not None
    return batch._replace(
        view=coloured(batch.view),
        view_label=None if batch.view_label is None else bands(batch.view),
        weak=coloured(batch.weak),
        strong=coloured(batch.strong),
        label=None if batch.label is None else bands(batch.weak),
    )


def losses_of(name: str, fast: FastPath, num_iterations: int) -> tuple[list[Losses], TrainingState, Iteration]:
    """Losses of iterations on rolled batches from one beginning, in fp64: no pseudo-label turns on rounding."""
    settings = ("method.tau=0.06", "train.optimizer.lr_backbone=1e-2", "train.optimizer.lr_head=1e-1")
    recipe, exact = tiny(name, *settings), AS_IT_IS.normalisation._replace(dtype=torch.float64)
    student = begin(recipe).student.double()
    placed(student, fast, torch.device("cpu"))
    decay = recipe.method.ema_decay
    state = TrainingState.begin(student, recipe.train.optimizer, num_iterations, decay, flat=fast.flat_update)
    iteration = Iteration(state, recipe, Passes(exact, None, grouped=fast.grouped), fast)
    source, target = (learnable(batch) for batch in batches(recipe))
    found = []
    for i in range(num_iterations):
        rolled = [batch.map(lambda t, i=i: t.roll(i, 2) if t.ndim > 2 else t) for batch in (source, target)]
        found.append({name: loss.clone() for name, loss in iteration(*rolled).items()})
    return found, state, iteration


RTOL = 1e-5


@pytest.mark.parametrize("name", ["gta2cs", "gta2cs-edge+released"])
def test_fast_and_plain_have_the_same_losses_over_20_iterations(name: str) -> None:
    expected, plain, by = losses_of(name, PLAIN, 20)
    assert by.way == "eager"
    everything = replace(PLAIN, grouped=True, gemm_aspp=True, fused_batch_norm=True, flat_update=True, compiled=True)
    found, fast, by = losses_of(name, everything, 20)
    assert by.way == "compiled"
    assert {"source", "mix", "htcm", "pixel", "prototype", "total"} <= expected[0].keys()
    assert float(expected[-1]["total"]) < 0.9 * float(expected[0]["total"]), "nothing is learnt: nothing is compared"
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        for term, loss in theirs.items():
            torch.testing.assert_close(ours[term], loss, rtol=RTOL, atol=1e-6, msg=f"iteration {i}: {term}")
    assert int(fast.iteration) == int(plain.iteration) == 20
    for (name, ours), theirs in zip(
        fast.student.state_dict().items(), plain.student.state_dict().values(), strict=True
    ):
        assert float((ours - theirs).abs().max()) <= 5e-3 * float(theirs.abs().max()) + 1e-4, name
