"""A network of a contributor's own, ten lines in a folder, through all that fastuda does with a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from added_modules import added, documented
from whole_runs import run, run_killed, saved_state

from fastuda.errors import FastudaError, UsageError
from fastuda.evaluation.load import load
from fastuda.model.build import build_network
from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe, load_recipe
from fastuda.recipe.text import explained
from fastuda.recipe.validation import recipe_of


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[None]:
    with added("fastuda.model", tmp_path / "contributed", documented("fastuda/model")):
        yield


@pytest.fixture
def toy_recipe(toy: None, tmp_path: Path) -> Callable[..., Recipe]:
    from whole_runs import TINY

    mine = [setting for setting in TINY if not setting.startswith("model.")]

    def build(*settings: str) -> Recipe:
        return load_recipe("demo", ["model.kind=toy", *mine, f"data.cache={tmp_path / 'cache'}", *settings])

    return build


@pytest.mark.parametrize(
    "more", [(), ("runtime.flat_update=true", "runtime.grouped=true", "train.optimizer.kind=adamw")]
)
def test_it_trains_is_killed_goes_on_and_predicts(
    more: tuple[str, ...], toy_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy_recipe(*more)
    results, _ = run(recipe, tmp_path / "whole")
    iou = results["adapted"]["iou"].values()
    assert results["adapted"]["miou"] == pytest.approx(sum(iou) / len(iou), abs=1e-3)
    run_killed(recipe, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    # Dropout too draws by the iteration's number.
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []

    trained = load(tmp_path / "whole", device="cpu")
    assert type(trained.network).__name__ == "Toy"
    assert trained.recipe.model.kind == "toy"
    assert trained.network.settings == trained.recipe.model.model_copy(update={"weights": "random"})
    average = {key.removeprefix("average."): value for key, value in expected.items() if key.startswith("average.")}
    state = trained.network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in average.items())


def test_its_table_is_part_of_the_recipe(toy_recipe: Callable[..., Recipe]) -> None:
    import tomllib

    recipe = toy_recipe("model.channels=4")
    again = recipe_of(tomllib.loads(dump_recipe(recipe)), "dumped")
    assert again == recipe
    text = explained(recipe)
    assert 'kind = "toy"' in text
    assert "# Of its features.\nchannels = 4" in text
    assert "width" not in text.partition("[model]")[2].partition("[warmup]")[0]


def test_errors_name_its_own_fields(toy: None) -> None:
    with pytest.raises(UsageError, match=r"model\.chanels: no such field; did you mean channels\?"):
        load_recipe("gta2cs", ["model.kind=toy", "model.chanels=4"])
    with pytest.raises(UsageError, match=r"model: no such kind: 'toi'; did you mean toy\?"):
        load_recipe("gta2cs", ["model.kind=toi"])
    with pytest.raises(UsageError, match=r"model\.depth: no such field"):
        load_recipe("gta2cs", ["model.kind=toy", "model.depth=18"])
    with pytest.raises(UsageError, match=r"no such kind: 'toy'; there are deeplab-v2, toy|too small"):
        load_recipe("gta2cs", ["model.kind=toy", "eval.size=[3, 3]"])


def test_without_its_folder_nobody_knows_it() -> None:
    with pytest.raises(UsageError, match=r"model: no such kind: 'toy'; there are deeplab-v2"):
        load_recipe("gta2cs", ["model.kind=toy"])


def test_a_file_of_another_family_says_whose_it_is(
    toy_recipe: Callable[..., Recipe], weights: Path, tmp_path: Path
) -> None:
    run(toy_recipe(), tmp_path / "run")
    model = tmp_path / "run" / "checkpoints" / "adapted-last.safetensors"
    with pytest.raises(FastudaError, match=r"of the kind toy, the recipe wants deeplab-v2: --set model\.kind=toy"):
        run(toy_recipe("model.kind=deeplab-v2", "model.depth=18"), tmp_path / "other", init=model)
    with pytest.raises(
        FastudaError, match=r"of the kind deeplab-v2, the recipe wants toy: --set model\.kind=deeplab-v2"
    ):
        run(toy_recipe(f"model.weights={weights}"), tmp_path / "another")
    with pytest.raises(FastudaError, match=r'model\.weights = "imagenet": no such file, and toy has no published'):
        run(toy_recipe("model.weights=imagenet"), tmp_path / "pretrained")


def test_its_own_file_is_a_start(toy_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    run(toy_recipe(), tmp_path / "run")
    model = tmp_path / "run" / "checkpoints" / "source_only-last.safetensors"
    results, _ = run(toy_recipe(), tmp_path / "adapted", init=model)
    assert "adapted" in results
    with pytest.raises(FastudaError, match=r"channels|keys do not fit"):
        run(toy_recipe("model.channels=4"), tmp_path / "smaller", init=model)


def test_a_file_without_its_header_is_refused(toy: None, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    recipe = load_recipe("gta2cs", ["model.kind=toy"])
    save_file(build_network(recipe).state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(FastudaError, match="foreign network"):
        load(tmp_path / "bare.safetensors", device="cpu")


def test_batch_norms_of_torchs_own_are_never_grouped(toy: None) -> None:
    model = build_network(load_recipe("gta2cs", ["model.kind=toy"]))
    assert not model.can_group
    assert build_network(load_recipe("gta2cs", ["model.depth=18", "model.width=0.1"])).can_group


def test_features_are_there_when_asked_for(toy: None) -> None:
    for settings in (["model.kind=toy"], ["model.depth=18", "model.width=0.125"]):
        model = build_network(load_recipe("gta2cs", settings))
        assert model(torch.zeros(2, 3, 32, 32)).features is None
        features = model(torch.zeros(2, 3, 32, 32), features=True).features
        assert features is not None
        assert features.shape[2:] == model(torch.zeros(2, 3, 32, 32)).logits.shape[2:]
