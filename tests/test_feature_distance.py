"""Feature distance to the frozen start: both forms by formula in fp64, where it counts, and through whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from steps import AS_IT_IS, SMALL, batches, begin
from torch import Tensor
from whole_runs import run, run_killed, saved_state

from fastuda.errors import FastudaError, UsageError
from fastuda.memory.estimate import estimate_bytes
from fastuda.method.feature_distance import Form, feature_distance, positions_of
from fastuda.method.reference import blank_reference, reference_of, require_same_reference
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.method.terms.feature_distance import FeatureDistance
from fastuda.method.terms.target_feature_distance import TargetFeatureDistance
from fastuda.model.build import build_network
from fastuda.model.segmenter import Outputs, described
from fastuda.model.weights import save_weights
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint.store import CheckpointStore

B, D, H, W = 2, 5, 3, 4
CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(features: Tensor, reference: Tensor, form: Form, counted: Tensor) -> Tensor:
    """Position by position, in Python's own sums."""
    distances = []
    for image, row, column in counted.nonzero().tolist():
        one, other = features[image, :, row, column], reference[image, :, row, column]
        if form == "euclidean":
            distances.append(torch.stack([(a - b) ** 2 for a, b in zip(one, other, strict=True)]).sum() ** 0.5)
            continue
        smooth = []
        for a, b in zip(one, other, strict=True):
            gap = abs(a - b)
            smooth.append(gap**2 / 2 if gap < 1 else gap - 0.5)
        lengths = (one**2).sum() ** 0.5 * (other**2).sum() ** 0.5
        cosine = (one * other).sum() / lengths
        distances.append(0.1 * torch.stack(smooth).sum() / D + 0.9 * (1 - cosine))
    return torch.stack(distances).sum() / len(distances)


@pytest.mark.parametrize("form", ["euclidean", "smooth-cosine"])
@pytest.mark.parametrize("everywhere", [True, False])
def test_value_and_gradient_are_the_formulas(form: Form, everywhere: bool) -> None:
    features, reference = random(B, D, H, W).mul(1.5).requires_grad_(), random(B, D, H, W, seed=1)
    counted = torch.ones(B, H, W, dtype=torch.bool) if everywhere else random(B, H, W, seed=2) > 0
    loss = feature_distance(features, reference, form, None if everywhere else counted)
    expected = by_hand(features, reference, form, counted)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    (found,), (wanted,) = torch.autograd.grad(loss, features), torch.autograd.grad(expected, features)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["euclidean", "smooth-cosine"])
def test_where_nothing_differs_or_nothing_counts_it_is_nothing_and_its_gradient_a_number(form: Form) -> None:
    same = random(B, D, H, W).requires_grad_()
    loss = feature_distance(same, same.detach().clone(), form)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(loss, same)[0].isfinite().all()
    none = feature_distance(same, random(B, D, H, W, seed=1), form, torch.zeros(B, H, W, dtype=torch.bool))
    assert none.item() == 0
    assert (torch.autograd.grad(none, same)[0] == 0).all()


def test_no_gradient_reaches_the_reference_and_low_precision_is_widened() -> None:
    reference = random(B, D, H, W, seed=1).requires_grad_()
    loss = feature_distance(random(B, D, H, W).requires_grad_(), reference, "euclidean")
    assert torch.autograd.grad(loss, reference, allow_unused=True) == (None,)
    low = feature_distance(random(B, D, H, W).bfloat16(), reference.detach().bfloat16(), "euclidean")
    assert low.dtype == torch.float32


def test_positions_are_those_that_one_listed_class_fills() -> None:
    labels = torch.full((1, 8, 12), 255, dtype=torch.uint8)  # 2 × 3 positions of 4 × 4 pixels
    labels[0, :4, :4] = 7
    labels[0, :4, 4:8] = 3
    labels[0, :2, 8:] = 7
    labels[0, 2:4, 8:] = 3  # half and half: neither fills it
    labels[0, 4:7, :4] = 3  # three quarters
    labels[0, 4:, 4:8] = 9  # not listed
    found = positions_of(labels, [3, 7], (2, 3), 0.75)
    assert found.tolist() == [[[True, True, False], [True, False, False]]]
    assert positions_of(labels, [3, 7], (2, 3), 0.76).sum() == 2
    assert positions_of(labels, [3, 7], (2, 3), 0.5).sum() == 4
    assert not positions_of(labels, [], (2, 3), 0.0).any()


def test_positions_need_not_divide_the_picture() -> None:
    labels = torch.zeros(1, 7, 9, dtype=torch.uint8)
    labels[0, :, 5:] = 4
    found = positions_of(labels, [4], (3, 4), 0.9)[0]
    assert not found[:, :2].any()
    assert found[:, 3].all()


def test_the_term_on_the_source_counts_things_alone() -> None:
    features, reference = random(1, D, 2, 2), random(1, D, 2, 2, seed=1)
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[0, :4, 4:] = 13  # car, in the upper right
    recipe = load_recipe("gta2cs")
    outputs = Outputs(random(1, 19, 2, 2), None, features, reference=reference)
    expected = (features - reference)[0, :, 0, 1].norm()
    torch.testing.assert_close(FeatureDistance().source_value(outputs, labels, recipe), expected)
    everywhere = FeatureDistance(classes=()).source_value(outputs, labels, recipe)
    torch.testing.assert_close(everywhere, (features - reference).norm(dim=1).mean())
    road = FeatureDistance(classes=("road",)).source_value(outputs, labels, recipe)
    torch.testing.assert_close(road, (features - reference).norm(dim=1).flatten()[[0, 2, 3]].mean())


def test_its_classes_are_checked() -> None:
    with pytest.raises(UsageError, match=r"terms\.feature_distance\.classes: neither .* has 'cra'; did you mean car\?"):
        load_recipe("gta2cs", ['terms.feature_distance.classes=["cra"]'])
    with pytest.raises(UsageError, match=r"classes: the recipe trains none of them; \[\] counts every position"):
        load_recipe("syn2cs", ['terms.feature_distance.classes=["train"]'])
    assert load_recipe("syn2cs", ["terms.feature_distance.weight=0.1"]).parts[-1] == "feature_distance"


BOTH = (
    "terms.feature_distance.classes=[]",
    "terms.feature_distance.weight=0.5",
    "terms.target_feature_distance.weight=2",
)


def begun(recipe: Recipe, *, moved: float = 0.0) -> TrainingState:
    """A state whose reference is its own student's start, moved a little."""
    twin = begin(recipe).student
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1 + moved)
    state = begin(recipe)
    state.reference = twin.eval().requires_grad_(False)
    return state


def test_both_terms_enter_the_step_with_their_weights() -> None:
    plain, recipe = load_recipe("gta2cs", SMALL), load_recipe("gta2cs", [*SMALL, *BOTH])
    expected = adaptation_step(begin(plain), *batches(plain), plain, AS_IT_IS)
    found = adaptation_step(begun(recipe), *batches(recipe), recipe, AS_IT_IS)
    assert set(found) - set(expected) == {"feature_distance", "target_feature_distance"}
    assert all(torch.equal(found[name], loss) for name, loss in expected.items() if name != "total")
    total = expected["total"] + 0.5 * found["feature_distance"] + 2 * found["target_feature_distance"]
    torch.testing.assert_close(found["total"], total)
    warm = warmup_step(begun(recipe), batches(recipe)[0], recipe, AS_IT_IS)
    torch.testing.assert_close(warm["feature_distance"], found["feature_distance"])
    assert "target_feature_distance" not in warm
    further = adaptation_step(begun(recipe, moved=0.1), *batches(recipe), recipe, AS_IT_IS)
    assert further["feature_distance"] != found["feature_distance"]


def test_the_reference_never_changes() -> None:
    recipe = load_recipe("gta2cs", [*SMALL, *BOTH])
    state = begun(recipe)
    assert state.reference is not None
    before = {name: value.clone() for name, value in state.reference.state_dict().items()}
    for _ in range(2):
        adaptation_step(state, *batches(recipe), recipe, AS_IT_IS)
    assert all(torch.equal(value, before[name]) for name, value in state.reference.state_dict().items())
    assert not state.reference.training
    own = {value.data_ptr() for value in before.values()}
    assert not own & {tensor.data_ptr() for tensor in state.tensors()}


def test_grouped_views_carry_the_same_distances() -> None:
    from dataclasses import replace

    recipe = load_recipe("gta2cs", [*SMALL, *BOTH])
    one = adaptation_step(begun(recipe), *batches(recipe), recipe, AS_IT_IS)
    together = adaptation_step(begun(recipe), *batches(recipe), recipe, replace(AS_IT_IS, grouped=True))
    torch.testing.assert_close(
        together["target_feature_distance"], one["target_feature_distance"], rtol=1e-3, atol=1e-4
    )


def test_only_recipes_with_such_a_term_have_a_reference(tmp_path: Path) -> None:
    plain, recipe = load_recipe("gta2cs", SMALL), load_recipe("gta2cs", [*SMALL, BOTH[0]])
    assert reference_of(plain, tmp_path) is None
    assert blank_reference(plain) is None
    before = torch.random.get_rng_state()
    reference = reference_of(recipe, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert reference is not None
    torch.manual_seed(recipe.seed)
    start = build_network(recipe).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in reference.state_dict().items())
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_memory_for_it_is_counted() -> None:
    plain, recipe = (load_recipe("gta2cs", [*SMALL, *more]) for more in ((), BOTH[:2]))
    weights = sum(value.nbytes for value in build_network(plain).state_dict().values())
    assert estimate_bytes(recipe, CPU) - estimate_bytes(plain, CPU) >= weights


def test_a_killed_run_goes_on_in_the_same_bits(
    tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("runtime.grouped=true", "runtime.flat_update=true")
    recipe = tiny("terms.feature_distance.classes=[]", "terms.target_feature_distance.weight=0.5", *more)
    run(recipe, tmp_path / "whole")
    run_killed(recipe, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    plain = tiny(*more)
    run(plain, tmp_path / "plain")
    other = saved_state(tmp_path / "plain")
    assert any(not torch.equal(expected[key], other[key]) for key in expected)


def test_the_start_is_the_weights_file_even_for_a_network_trained_since(
    tmp_path: Path, tiny: Callable[..., Recipe]
) -> None:
    start, trained = tmp_path / "start.safetensors", tmp_path / "trained.safetensors"
    recipe = tiny("terms.feature_distance.classes=[]", f"model.weights={start}")
    for seed, path in enumerate((start, trained)):
        torch.manual_seed(seed)
        network = build_network(recipe)
        save_weights(path, network.state_dict(), described(network))
    run(recipe, tmp_path / "run", init=trained)
    notes = CheckpointStore(tmp_path / "run" / "checkpoints").newest_sound().notes
    reference = reference_of(recipe, tmp_path)
    assert reference is not None
    assert notes.reference == require_same_reference(reference, notes.reference)
    assert torch.equal(reference.state_dict()["backbone.conv1.weight"], load_file(start)["backbone.conv1.weight"])


def test_a_run_does_not_go_on_with_another_start(
    tmp_path: Path, tiny: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start.safetensors"
    recipe = tiny("terms.feature_distance.classes=[]", f"model.weights={start}")
    network = build_network(recipe)
    save_weights(start, network.state_dict(), described(network))
    run(recipe, tmp_path / "run")
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    save_weights(start, network.state_dict(), described(network))
    with pytest.raises(FastudaError, match=r"model\.weights is not what the run began with"):
        run(recipe, tmp_path / "run", resume=True)


def test_defaults_are_the_published_ones() -> None:
    assert (FeatureDistance().weight, FeatureDistance().form, FeatureDistance().least_share) == (
        0.005,
        "euclidean",
        0.75,
    )
    names = load_recipe("gta2cs").classes.build().names
    assert sorted(names.index(name) for name in FeatureDistance().classes) == [6, 7, *range(11, 19)]
    assert (TargetFeatureDistance().weight, TargetFeatureDistance().form) == (0.1, "smooth-cosine")
    assert math.isclose(feature_distance(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), "euclidean").item(), 1)
