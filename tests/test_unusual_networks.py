"""A network with what DeepLab has not: frozen and tied weights, attention's dropout, whole numbers in its state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from added_modules import added, documented
from safetensors.torch import load_file
from torch import Tensor, nn

from fastuda.data.packing.pack import Packed
from fastuda.errors import FastudaError, UsageError
from fastuda.evaluation.target_statistics import gather_statistics
from fastuda.method.state import TrainingState
from fastuda.model.build import build_model
from fastuda.model.family import Family, Published, family_of
from fastuda.model.passes import Passes, frozen_running_statistics, teaching
from fastuda.model.segmenter import Outputs, ParameterGroup, Segmenter, described
from fastuda.model.weights import read_weights, save_weights
from fastuda.recipe import Model, Recipe, Sgd
from fastuda.recipe.file import load_recipe
from fastuda.runs.checkpoint import read_state, restore_state, save_state
from fastuda.runs.checkpoint.notes import Notes

CPU = torch.device("cpu")
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Table(Model):
    kind: Literal["unusual"] = "unusual"


class Unusual(Segmenter):
    output_stride = 4

    def __init__(self, settings: Table, num_classes: int) -> None:
        super().__init__(num_classes, settings)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]  # as stochastic depth is often made
        self.stem = nn.Conv2d(3, 8, 4, 4).requires_grad_(False)
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.head = nn.Conv2d(8, num_classes, 1)
        self.register_buffer("order", torch.arange(8).flip(0))

    def forward(self, images: Tensor, *, features: bool = False) -> Outputs:
        x = self.norm(self.second(self.first(self.stem(images)).relu()))
        tokens = x[:, self.order].flatten(2).transpose(1, 2)
        attended = self.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)
        return Outputs(self.head(x + attended), None, x if features else None)

    def parameter_groups(self) -> list[ParameterGroup]:
        head = list(self.head.parameters())
        own = {id(one) for one in head}
        return [
            ParameterGroup("backbone", [p for p in self.parameters() if p.requires_grad and id(p) not in own]),
            ParameterGroup("head", head, depth=1),
        ]


class UnusualFamily(Family[Table]):
    table = Table

    def build(self, settings: Table, num_classes: int) -> Unusual:
        return Unusual(settings, num_classes)


FAMILY = UnusualFamily()


def network(seed: int = 0) -> Unusual:
    torch.manual_seed(seed)
    return FAMILY.build(Table(), 19).train()


def begun(seed: int = 0, *, flat: bool, precision: torch.dtype | None = None) -> TrainingState:
    rates = Sgd(lr_backbone=0.1, lr_head=0.1)
    return TrainingState.begin(network(seed), rates, 10, 0.9, flat=flat, precision=precision)


def trained(state: TrainingState, num_iterations: int = 2) -> TrainingState:
    passes = Passes.of(load_recipe("gta2cs"), CPU)
    for k in range(num_iterations):
        state.begin_iteration()
        torch.manual_seed(k)
        precision = None if state.flat is None else state.worker.head.weight.dtype  # type: ignore[union-attr]
        amp = precision if precision == torch.bfloat16 else None
        loss = replace(passes, amp=amp).normalised(state.worker.train(), IMAGES).logits.float().square().mean()
        state.backward(loss)
        state.end_iteration(loss, lambda function: function)
    return state


def test_its_file_is_read_back_whole_numbers_and_all(tmp_path: Path) -> None:
    model = network()
    state, header = model.state_dict(), described(model)
    assert FAMILY.interpret(state, header, None).state["order"].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    save_weights(tmp_path / "model.safetensors", state, header)  # tied weights, too
    written = load_file(tmp_path / "model.safetensors")
    assert torch.equal(written["first.weight"], written["second.weight"])
    before = torch.get_rng_state()
    FAMILY.interpret(written, header, None)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(FastudaError, match="order is float32, not int64"):
        FAMILY.interpret({**state, "order": torch.zeros(8)}, header, None)
    with pytest.raises(FastudaError, match=r"head\.weight is int64, not float32 \(or 16 or 64\)"):
        FAMILY.interpret({**state, "head.weight": state["head.weight"].long()}, header, None)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_frozen_and_tied_weights_train_flat_as_they_train_plain(precision: torch.dtype | None) -> None:
    plain, flat = trained(begun(flat=False)), trained(begun(flat=True, precision=precision))
    start = network().state_dict()
    for name, value in plain.student.state_dict().items():
        found = flat.student.state_dict()[name]
        torch.testing.assert_close(found, value, atol=1e-6 if precision is None else 0.03, rtol=1e-5)
    student = flat.student
    assert isinstance(student, Unusual)
    assert torch.equal(student.stem.weight, start["stem.weight"])
    assert student.first.weight is student.second.weight
    assert not torch.equal(student.first.weight, start["first.weight"])


def test_the_worker_reads_frozen_and_tied_weights_from_the_student(tmp_path: Path) -> None:
    state = trained(begun(flat=True, precision=torch.bfloat16))
    save_state(tmp_path / "state", state, "adapted", Notes(warmup=True))
    other = begun(seed=1, flat=True, precision=torch.bfloat16)
    restore_state(read_state(tmp_path / "state"), other, tmp_path / "state")
    worker, student = other.worker, other.student
    assert isinstance(worker, Unusual)
    assert isinstance(student, Unusual)
    assert worker.stem.weight is student.stem.weight
    assert worker.first.weight is worker.second.weight is student.first.weight
    assert worker.head.weight.dtype == torch.bfloat16
    assert torch.equal(worker.head.weight.float(), student.head.weight.bfloat16().float())
    with torch.no_grad(), teaching(worker), teaching(state.worker), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(worker(IMAGES).logits, state.worker(IMAGES).logits)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_frozen_weight_that_a_group_lists_stays_as_it_is(precision: torch.dtype | None) -> None:
    model, before = network(), network().stem.weight
    everything = [ParameterGroup("backbone", list(model.parameters()))]
    model.parameter_groups = lambda: everything  # type: ignore[method-assign]
    state = TrainingState.begin(model, Sgd(weight_decay=0.1), 10, 0.9, flat=True, precision=precision)
    trained(state)
    assert torch.equal(model.stem.weight, before)
    assert isinstance(state.worker, Unusual)
    assert not state.worker.stem.weight.requires_grad


def test_nothing_draws_in_a_teacher_however_it_is_written() -> None:
    model = network()
    assert not torch.equal(model(IMAGES).logits, model(IMAGES).logits)
    with teaching(model):
        assert [name for name, module in model.named_modules() if module.training] == ["norm"]
        assert torch.equal(model(IMAGES).logits, model(IMAGES).logits)
    assert all(module.training for module in model.modules())


def test_every_kind_of_batch_norm_keeps_its_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Conv2d(3, 3, 1), nn.SyncBatchNorm(3), nn.BatchNorm2d(3))
    with frozen_running_statistics(model):  # type: ignore[arg-type]
        assert [layer.momentum for layer in model if hasattr(layer, "momentum")] == [0, 0, 0]
    assert [layer.momentum for layer in model if hasattr(layer, "momentum")] == [0.1, 0.1, 0.1]


class Dropping(Segmenter):
    """Dropout before BatchNorm, which gathers other statistics at each draw."""

    output_stride = 1

    def __init__(self) -> None:
        super().__init__(3, Table())
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm2d(3)

    def forward(self, images: Tensor, *, features: bool = False) -> Outputs:
        return Outputs(self.norm(self.drop(images)))

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("head", list(self.parameters()))]


def test_statistics_of_the_target_are_gathered_without_draws(
    pack: Callable[..., Packed], tiny_recipe: Callable[..., Recipe]
) -> None:
    recipe, pixels = tiny_recipe("eval.size=[32, 16]"), np.random.default_rng(0)
    pictures = [pixels.integers(0, 256, (16, 32, 3), np.uint8) for _ in range(3)]
    packed = pack(recipe, pictures, [np.zeros((16, 32), np.uint8)] * 3, size=(32, 16), own_label_size=True)
    passes, found = Passes.of(recipe, CPU), []
    for seed in (0, 1):
        model = Dropping()
        torch.manual_seed(seed)
        gather_statistics(model, packed, recipe, passes, CPU)
        found.append(model.norm.running_mean)
        assert not any(module.training for module in model.modules())
    seen = (torch.from_numpy(np.stack(pictures)) / 255).permute(0, 3, 1, 2)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for statistics in found:
        assert statistics is not None
        torch.testing.assert_close(statistics, (seen.mean((0, 2, 3)) - mean) / deviation, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (lambda model: [model.first, model.second, model.norm, model.attention], "head.weight 0 times"),
        (lambda model: [model.norm, model.attention, model.first, model.head, model.head], "head.weight 2 times"),
        (lambda model: [model, nn.Linear(2, 5)], r"one of shape \(5, 2\) that is none of its own"),
    ],
)
def test_groups_that_do_not_list_each_parameter_once_are_refused(
    groups: Callable[[Unusual], list[nn.Module]], words: str
) -> None:
    model = network()
    listed = [ParameterGroup("backbone", list(module.parameters())) for module in groups(model)]
    model.parameter_groups = lambda: listed  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=words):
        TrainingState.begin(model, Sgd(), 10, 0.9)


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Family[Model]]:
    with added("fastuda.model", tmp_path / "contributed", documented("fastuda/model")):
        yield family_of("toy")


def test_a_word_of_the_familys_own_is_fetched_and_checked(
    toy: Family[Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("gta2cs", ["model.kind=toy", "model.weights=lvd142m"])
    file = tmp_path / "published" / "vits14.safetensors"
    file.parent.mkdir()
    model = toy.build(recipe.model, 19)
    save_weights(file, model.state_dict(), described(model))
    digits = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(type(toy), "pretrained", lambda self, settings: Published(file.as_uri(), digits))
    loaded, _ = build_model(recipe, tmp_path / "cache")
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    monkeypatch.setattr(type(toy), "pretrained", lambda self, settings: Published(file.as_uri(), "0" * 64))
    with pytest.raises(FastudaError, match=r"vits14\.safetensors"):
        build_model(recipe, tmp_path / "other")
    monkeypatch.setattr(type(toy), "pretrained", lambda self, settings: None)
    with pytest.raises(FastudaError, match='"lvd142m": no such file, and toy has no published weights of that name'):
        build_model(recipe, tmp_path / "other")


def test_a_family_knows_its_keys_inside_a_wrapper(
    toy: Family[Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(toy), "recognises", lambda self, keys: "head.bias" in keys)
    monkeypatch.setattr(
        type(toy), "interpret", lambda self, content, metadata, settings: pytest.fail("it is the toy's")
    )
    torch.save({"meta": {"epoch": 3}, "state_dict": {"head.bias": torch.zeros(19)}}, tmp_path / "theirs.pth")
    with pytest.raises(pytest.fail.Exception, match="it is the toy's"):
        read_weights(tmp_path / "theirs.pth")


def test_sizes_that_a_network_does_not_take_are_refused_in_its_own_words(
    toy: Family[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: Model, size: tuple[int, int]) -> str | None:
        return "sides must be multiples of 14" if size[0] % 14 or size[1] % 14 else None

    monkeypatch.setattr(toy.table, "refuses", refuses)
    sizes = ["views.source_size=[280, 140]", "views.target_size=[280, 140]", "views.crop_size=[140, 140]"]
    load_recipe("gta2cs", ["model.kind=toy", *sizes, "eval.size=[280, 140]"])
    with pytest.raises(UsageError, match=r"views\.crop_size = \[140, 128\]: sides must be multiples of 14"):
        load_recipe("gta2cs", ["model.kind=toy", *sizes, "eval.size=[280, 140]", "views.crop_size=[140, 128]"])
    with pytest.raises(UsageError, match=r"eval\.size = \[280, 256\]: sides must be multiples of 14"):
        load_recipe("gta2cs", ["model.kind=toy", *sizes, "eval.size=[280, 256]"])


def test_two_values_a_channel_are_asked_for_unless_a_network_says_that_it_needs_none(
    toy: Family[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["model.kind=toy", "views.whole=false", "views.crop_size=[4, 4]", "train.batch_size=1"]
    with pytest.raises(UsageError, match=r"views\.crop_size = \[4, 4\].*BatchNorm needs two values"):
        load_recipe("gta2cs", small)
    monkeypatch.setattr(toy.table, "least_values", 1)
    load_recipe("gta2cs", small)
