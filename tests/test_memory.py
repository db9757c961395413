"""The memory estimate: near what an iteration really takes, and a refusal that says what to lower."""

from __future__ import annotations

import pytest
import torch
from steps import tiny

import fastuda.memory.estimate as memory_module
from fastuda.data.loading.made import made_batches
from fastuda.errors import FastudaError
from fastuda.memory.estimate import estimate_bytes, require_memory
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step
from fastuda.model.build import build_network
from fastuda.model.passes import Passes
from fastuda.model.place import placed
from fastuda.recipe import Recipe
from fastuda.runtime.fast_path import FastPath
from fastuda.runtime.stop import StopAskedError
from fastuda_bench.memory import peak_extra_bytes

CPU = torch.device("cpu")
SIZES = ("views.source_size=[512, 256]", "views.target_size=[512, 256]", "views.crop_size=[256, 256]")


@pytest.fixture
def recipe() -> Recipe:
    return tiny("gta2cs", *SIZES, "model.width=0.5")


def test_the_estimate_is_near_what_an_iteration_takes(recipe: Recipe) -> None:
    model = build_network(recipe).train()
    state = TrainingState.begin(model, recipe.train.optimizer, 10, 0.9)
    batches, passes = made_batches(recipe, CPU), Passes.of(recipe, CPU)
    held = sum(tensor.nbytes for tensor in state.tensors())
    taken = peak_extra_bytes(lambda: adaptation_step(state, *batches, recipe, passes), CPU)
    assert taken is not None
    gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad)  # still there from the call before
    assert estimate_bytes(recipe, CPU) == pytest.approx(held + gradients + taken, rel=0.35)


def test_the_estimate_grows_with_what_it_says_to_lower(recipe: Recipe) -> None:
    whole = estimate_bytes(recipe, CPU)
    for smaller in ("train.batch_size=1", "views.crop_size=[128, 128]"):
        assert estimate_bytes(tiny("gta2cs", *SIZES, "model.width=0.5", smaller), CPU) < 0.85 * whole


def test_an_optimiser_with_more_than_torchs_is_estimated() -> None:
    released, plain = (estimate_bytes(tiny(name), CPU) for name in ("gta2cs-released", "gta2cs"))
    assert released == pytest.approx(plain, rel=0.01)


def test_estimating_changes_no_random_number(recipe: Recipe) -> None:
    before = torch.get_rng_state()
    estimate_bytes(recipe, CPU)
    assert torch.equal(torch.get_rng_state(), before)


class Looks:
    """Counts how often it is called, and raises at the `end`-th time."""

    def __init__(self, end: int | None = None) -> None:
        self.count, self._end = 0, end

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._end:
            raise StopAskedError("enough")


def test_an_estimate_can_be_left_at_any_operation() -> None:
    recipe, looks = tiny("demo", "model.width=0.03125", "views.crop_size=[32, 32]"), Looks()
    state, wanted = torch.get_rng_state(), estimate_bytes(recipe, CPU)
    assert estimate_bytes(recipe, CPU, look=looks) == wanted
    assert looks.count > 500
    for end in (1, looks.count // 3, looks.count // 2, looks.count - 5):  # forward and backward
        with pytest.raises(StopAskedError):
            estimate_bytes(recipe, CPU, look=Looks(end))
        assert torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), state)
    assert estimate_bytes(recipe, CPU) == wanted


def test_a_recipe_that_does_not_fit_is_refused_with_what_to_lower(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "_free_bytes", lambda device: 2**27)
    with pytest.raises(FastudaError) as caught:
        require_memory(recipe, CPU)
    message = str(caught.value)
    assert "this machine's free memory is 0.1 GiB: lower train.batch_size (2), views.crop_size [256, 256]" in message
    assert "views.source_size [512, 256] or views.target_size [512, 256], or train on crops alone" in message
    assert "--set views.whole=false" in message
    needed = float(message.split("about ")[1].split()[0])
    assert needed == pytest.approx(1.05 * estimate_bytes(recipe, CPU) / 2**30, abs=0.06)


def test_a_recipe_that_fits_passes(recipe: Recipe) -> None:
    require_memory(recipe, CPU)


def test_seeds_are_estimated_once_and_other_sizes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    estimated: list[Recipe] = []

    def counting(recipe: Recipe, *_: object, **__: object) -> int:
        estimated.append(recipe)
        return 1

    monkeypatch.setattr(memory_module, "estimate_bytes", counting)
    monkeypatch.setattr(memory_module, "_estimates", {})
    for settings in (("seed=1",), ("seed=2", "data.cache=elsewhere"), ("seed=1", "train.batch_size=3")):
        require_memory(tiny("gta2cs", *settings), CPU)
    assert [recipe.seed for recipe in estimated] == [1, 1]


def test_gta2cs_is_estimated_below_16_gib_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    from fastuda.recipe.file import load_recipe

    recipe, gpu = load_recipe("gta2cs"), torch.device("cuda", 0)
    assert FastPath.of(recipe.runtime, gpu).amp == torch.bfloat16
    assert 6 * 2**30 < estimate_bytes(recipe, gpu) < 13 * 2**30


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gta2cs_takes_less_than_16_gib() -> None:
    from fastuda.recipe.file import load_recipe
    from fastuda.training.iteration import Iteration

    recipe, device = load_recipe("gta2cs", ["model.weights=random"]), torch.device("cuda", torch.cuda.current_device())
    fast = FastPath.of(recipe.runtime, device)
    student = placed(build_network(recipe), fast, device).train()
    state = TrainingState.begin(student, recipe.train.optimizer, 9, 0.9, flat=fast.flat_update, precision=fast.amp)
    iteration = Iteration(state, recipe, Passes.of(recipe, device), fast)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        iteration(*made_batches(recipe, device))
    assert torch.cuda.max_memory_reserved() < 16 * 2**30
    assert iteration.way == "compiled graph"
    assert torch.cuda.max_memory_allocated() < 1.3 * estimate_bytes(recipe, device)
