"""Weights of strangers: whatever a file holds, it is read as what it is or refused on one line, at once."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.reading import STEM, TINY, VAR, State, refused, released, special_files
from faults.weights import KINDS, mutated
from faults.weights_file import torch_bytes
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from fastuda.errors import FastudaError
from fastuda.evaluation.load import load
from fastuda.model.build import build_model
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.deeplab.resnet import Depth
from fastuda.model.deeplab.table import Table
from fastuda.model.download import fetch
from fastuda.model.segmenter import described
from fastuda.model.weights import read_weights, save_weights
from fastuda.recipe import Recipe
from fastuda_cli.main import app

DEMO = ["demo.num_source=2", "demo.num_source_val=1", "demo.num_target=2", "demo.num_val=1", "demo.size=[64, 32]"]


# Kinds that may leave the network as it was.
READABLE = ("other floats", "shared", "odd keys", "sound", "torch bits", "layout", "recipe", "shape")


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.parametrize("seed", range(2 * len(KINDS)), ids=lambda seed: f"{KINDS[seed % len(KINDS)]}-{seed}")
def test_a_mutated_file_is_refused_on_one_line_or_read_as_it_was(
    seed: int, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"w{'.safetensors' if seed % 2 else '.pth'}"
    kind = mutated(seed, base, path).partition(":")[0]
    try:
        found = load(path, recipe=None if kind == "recipe" else "demo", device="cpu")
    except FastudaError as error:
        said = str(error)
    else:
        said = ""
        wanted, tolerance = read_weights(base).state, 0.01 if kind == "other floats" else 0
        # A legacy file of torch.save has no checksum: a flipped bit of a value is a value.
        if kind != "torch bits":
            for key, value in found.network.state_dict().items():
                torch.testing.assert_close(value, wanted[key], rtol=tolerance, atol=tolerance)
    assert kind in READABLE if not said else kind not in ("sound", "other floats")
    assert not said or str(path) in said
    assert "\n" not in said
    assert len(said) < 1500
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
def test_the_same_seed_makes_the_same_mutation(base: Path, tmp_path: Path) -> None:
    for seed, kind in list(enumerate(KINDS))[::4]:
        said = {mutated(seed, base, tmp_path / name) for name in ("a", "b")}
        assert len(said) == 1
        assert said.pop().startswith(f"{kind}: ")
        assert (tmp_path / "a").read_bytes() != base.read_bytes() or kind == "sound"
    for seed in range(7):
        mutated(seed, base, tmp_path / "a")
        mutated(seed, base, tmp_path / "b")
        # Those kinds edit the file's own bytes; safetensors and torch.save write the same content in several ways.
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


FIELDS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no input": (lambda m: m.pop("input"), "input: Field required"),
    "no aspp": (lambda m: m.pop("aspp"), "aspp: Field required"),
    "another stride": (lambda m: m.update(stride_on="7x7"), "stride_on: Input should be '1x1' or '3x3' (got '7x7')"),
    "another input": (
        lambda m: m.update(input=3),
        "input: Input should be 'rgb-imagenet', 'bgr-caffe' or 'rgb-tf' (got 3)",
    ),
    "padding 2": (lambda m: m.update(pool_padding=2), "pool_padding: Input should be 0 or 1 (got 2)"),
    "padding true": (lambda m: m.update(pool_padding=True), "pool_padding: Input should be 0 or 1 (got True)"),
    "padding as text": (lambda m: m.update(pool_padding="1"), "pool_padding: Input should be 0 or 1 (got '1')"),
    "no dilation": (lambda m: m.update(aspp=[]), "aspp: Tuple should have at least 1 item"),
    "dilation 0": (lambda m: m.update(aspp=[6, 0]), "aspp.1: Input should be greater than or equal to 1 (got 0)"),
    "dilation 6.5": (lambda m: m.update(aspp=[6.5]), "aspp.0: Input should be a valid integer (got 6.5)"),
    "huge dilation": (lambda m: m.update(aspp=[2**40]), "aspp.0: Input should be less than or equal to 4096"),
    "many dilations": (lambda m: m.update(aspp=[6] * 65), "aspp: Tuple should have at most 64 items"),
    "one dilation more": (lambda m: m.update(aspp=[6, 12, 18]), "names 3 dilations"),
    "one dilation fewer": (lambda m: m.update(aspp=[6]), "names 1 dilations (metadata `model`: aspp), and its classi"),
    "another field": (lambda m: m.update(widht=1), "widht: no such field; it has input, stride_on, pool_padding, aspp"),
}


@pytest.mark.parametrize("what", list(FIELDS))
def test_each_field_of_an_own_files_header_is_checked(
    what: str, state: State, header: dict[str, str], tmp_path: Path
) -> None:
    change, words = FIELDS[what]
    model = json.loads(header["model"])
    change(model)
    save_weights(tmp_path / "w.safetensors", state, header | {"model": json.dumps(model)})
    refused(tmp_path / "w.safetensors", "metadata `model`", words)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", "[" * 10**5, "9" * 5000, "NaN", "\0"])
def test_a_header_that_is_no_table_is_refused(text: str, state: State, header: dict[str, str], tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", state, header | {"model": text})
    refused(tmp_path / "w.safetensors", "its header does not say which network", "metadata `model`")


RECIPES = {
    "torn": ("[model]\ndep", "Expected '=' after a key"),
    "twice": ("seed = 1\nseed = 2", "Cannot overwrite a value"),
    "5,000 digits": ("seed = " + "9" * 5000, "Exceeds the limit"),
    "nested": ("a = " + "[" * 10**5, "tables in tables without end"),
    "empty": ("", "source: Field required"),
    "another type": ("classes = 3", "classes: Input should be"),
    "of other classes": ("[classes]\nnames = ['road', 'road']", "classes"),
    "another class list": ("[classes]\npreset = 'mars'", "classes"),
    "control characters": ("seed = '\x1b[2J'", "invalid character"),
    "of another model": ("[model]\ndepth = 19", "model.depth"),
}


@pytest.mark.parametrize("what", list(RECIPES))
def test_a_recipe_that_is_none_is_named(what: str, state: State, header: dict[str, str], tmp_path: Path) -> None:
    text, words = RECIPES[what]
    path = tmp_path / "w.safetensors"
    save_weights(path, state, header | {"recipe": text})
    said = refused(path, "the recipe in its header (metadata `recipe`) cannot be used", words, "--recipe")
    assert said.isprintable()
    assert load(path, recipe="demo", device="cpu").network.num_classes == len(state["head.branches.0.bias"])


def spoilt(key: str, change: Callable[[Tensor], Any]) -> Callable[[State], None]:
    def spoil(state: State) -> None:
        state[key] = change(state[key])

    return spoil


def with_value(value: float, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(dtype).flatten().index_fill(0, torch.tensor([0]), value).reshape(tensor.shape)


FIRST, LAST = "backbone.layer1.0.conv1.weight", "auxiliary_head.branches.1.weight"
HEAD = "head.branches.0.weight"
TENSORS: dict[str, tuple[Callable[[State], Any], str]] = {
    "NaN": (spoilt(STEM, with_value(float("nan"))), f"NaN or infinity ({STEM})"),
    "NaN in a count": (
        spoilt("backbone.bn1.num_batches_tracked", lambda t: torch.tensor(float("nan"))), "bn1.num_batches_tracked",
    ),
    "infinite mean": (spoilt("backbone.bn1.running_mean", with_value(float("inf"))), "backbone.bn1.running_mean"),
    "negative variance": (spoilt(VAR, with_value(-1e-3)), f"negative variances ({VAR})"),
    "too large for fp32": (spoilt(LAST, with_value(-1e39, torch.float64)), f"too large for float32 ({LAST})"),
    "int8": (spoilt(STEM, lambda t: t.to(torch.int8)), f"{STEM} is int8, not float32"),
    "bool": (spoilt(VAR, lambda t: t.bool()), f"{VAR} is bool, not float32"),
    "int64 head": (spoilt(HEAD, lambda t: t.long()), f"{HEAD} is int64, not float32"),
    "complex": (spoilt(STEM, lambda t: t.to(torch.complex64)), f"{STEM} is complex64, not float32"),
    "float8": (spoilt(LAST, lambda t: t.to(torch.float8_e5m2)), f"{LAST} is float8_e5m2, not float32"),
    "scalar head": (spoilt(HEAD, lambda t: t.sum()), f"{HEAD} is a number, and should be N×M×K×K"),
    "scalar first layer": (spoilt(FIRST, lambda t: t.sum()), f"{FIRST} is a number, and should be"),
    "scalar variance": (spoilt("backbone.bn1.running_var", lambda t: t.sum()), "bn1.running_var is a number, not 64"),
    "scalar stem": (spoilt(STEM, lambda t: t.sum()), f"{STEM} is a number, not 64×3×7×7"),
    "1,000 classes": (spoilt(HEAD, lambda t: torch.zeros(1000, *t.shape[1:])), "with N from 1 to 255 classes"),
    "129 channels": (spoilt(FIRST, lambda t: torch.zeros(129, 64, 3, 3)), "with N from 1 to 128 channels"),
    "heads that disagree": (spoilt(LAST, lambda t: torch.cat([t, t])), f"1 keys do not fit ResNet-18.*{LAST} is"),
    "a bias that disagrees": (spoilt("head.branches.1.bias", lambda t: t[:1]), "head.branches.1.bias is 1, not"),
    "nothing": (spoilt(VAR, lambda t: t[:0]), f"{VAR} is 0, which is empty"),
    "nothing of a huge shape": (spoilt(STEM, lambda t: torch.zeros(0, 2**50)), "0×1125899906842624, which is empty"),
    "rank 20": (spoilt(VAR, lambda t: t.reshape((1,) * 20 + t.shape)), "1×1×1×1×1×1×1×1×…"),
    "no head's first weight": (lambda s: s.pop(HEAD), f"{HEAD} is missing"),
    "no auxiliary bias": (lambda s: s.pop("auxiliary_head.branches.0.bias"), "head.branches.0.bias is missing"),
    "a third branch": (lambda s: s.update({"head.branches.2.weight": s[HEAD] + 1}), "its classifier has 3 branches"),
    "a block too many": (lambda s: s.update({"backbone.layer1.9999.x": torch.ones(1)}), "10000, 2, 2, 2 basic"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(TENSORS))
def test_each_tensor_is_held_against_the_network(
    what: str, state: State, header: dict[str, str], tmp_path: Path
) -> None:
    spoil, words = TENSORS[what]
    spoil(state)
    save_weights(tmp_path / "w.safetensors", {key: value.contiguous() for key, value in state.items()}, header)
    refused(tmp_path / "w.safetensors", *words.split(".*"))


@pytest.mark.parametrize("kind", ["torchvision", "caffe", "deeplab-init", "released"])
@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("layer1.0.bn1.running_var", with_value(-1.0), "negative variances (backbone.layer1.0.bn1.running_var)"),
        ("layer4.1.conv2.weight", with_value(float("inf")), "NaN or infinity (backbone.layer4.1.conv2.weight)"),
        ("bn1.running_var", lambda t: t.sum(), "backbone.bn1.running_var is a number, not 64"),
        ("conv1.weight", lambda t: t.to_sparse(), "backbone.conv1.weight is sparse, not dense"),
        ("bn1.weight", lambda t: t.to("meta"), "backbone.bn1.weight is without values"),
    ],
)
def test_every_kind_of_file_is_held_to_it(
    kind: str, key: str, change: Callable[[Tensor], Tensor], words: str, state: State, tmp_path: Path
) -> None:
    plain = released(state) if kind == "released" else {
        key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")
    }  # fmt: skip
    plain[key] = change(plain[key])
    prefix = "Scale." if kind == "deeplab-init" else ""
    torch.save({prefix + name: value for name, value in plain.items()}, tmp_path / "w.pth")
    with pytest.raises(FastudaError) as caught:
        read_weights(tmp_path / "w.pth", Table(convention="caffe" if kind == "caffe" else "auto"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


LAYOUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "sparse": (lambda value: value.to_sparse(), "sparse, not dense"),
    "CSR": (lambda value: value.flatten(1).to_sparse_csr(), "sparse, not dense"),
    "quantised": (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "quantised, not dense"),
    "nested": (lambda value: torch.nested.nested_tensor([value, value]), "nested, not dense"),
    "meta": (lambda value: value.to("meta"), "without values (on the device meta)"),
    "expanded": (lambda value: torch.zeros(1).expand(value.shape), "in a memory of 4 bytes; its values overlap"),
    "terabytes": (lambda _: torch.zeros(1).expand(2**40, 2**20), "1099511627776×1048576 in a memory of 4 bytes"),
    "overlapping": (lambda value: torch.zeros(99).as_strided(value.shape, (1, 1, 1, 1)), "its values overlap"),
    "a list": (lambda value: [value], "layer2.0.conv1.weight is missing"),
    "text": (lambda _: "weights", "layer2.0.conv1.weight is missing"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("what", list(LAYOUTS))
def test_tensors_that_are_no_plain_numbers_are_refused(what: str, zipped: bool, state: State, tmp_path: Path) -> None:
    plain: dict[str, Any] = released(state)
    change, words = LAYOUTS[what]
    plain["layer2.0.conv1.weight"] = change(plain["layer2.0.conv1.weight"])
    (tmp_path / "w.pth").write_bytes(torch_bytes(plain, zipped=zipped))
    # torch rebuilds a nested tensor of a legacy file before it has read its sizes, and may or may not fail on them.
    refused(tmp_path / "w.pth", words if zipped or what != "nested" else "")


def test_parameters_slices_and_other_memory_formats_are_read(state: State, tmp_path: Path) -> None:
    plain: dict[str, Any] = released(state)
    plain["conv1.weight"] = torch.nn.Parameter(plain["conv1.weight"].to(memory_format=torch.channels_last))
    plain["bn1.weight"] = torch.stack([plain["bn1.weight"], plain["bn1.bias"]], dim=1)[:, 0]
    torch.save(plain, tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth").state
    assert torch.equal(found["backbone.conv1.weight"], state["backbone.conv1.weight"])
    assert torch.equal(found["backbone.bn1.weight"], state["backbone.bn1.weight"])


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_the_widest_and_the_narrowest_network_are_read(depth: Depth, tmp_path: Path) -> None:
    for width in (1 / 64, 3 / 64):
        model = DeepLabV2(255, depth=depth, width=width, aspp=(1, 4096), auxiliary=width > 1 / 64)
        model.input = "bgr-caffe"
        save_weights(tmp_path / "w.safetensors", model.state_dict(), described(model))
        found = read_weights(tmp_path / "w.safetensors")
        assert (found.depth, found.width, found.num_classes, found.aspp) == (depth, width, 255, (1, 4096))


def test_reading_draws_no_random_number(recipe: Recipe, base: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    read_weights(base)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)


def test_a_flipped_bit_of_an_own_file_is_damage_and_an_older_file_is_read(
    base: Path, state: State, header: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    data = bytearray(base.read_bytes())
    for place in (len(data) - 1, len(data) // 2, data.index(b"1x1")):
        flipped = bytearray(data)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        refused(path, "damaged: its content is not what was written (SHA-256")
    save_file(state, path, header)
    assert torch.equal(load(path, device="cpu").network.state_dict()[STEM], state[STEM])


COMMANDS = ("predict", "eval", "init", "weights")
CLI_SEEDS = (0, 11, 13, 21, 23, 25, 26, 27)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_falls_over_a_strangers_file(
    command: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "fastuda.training.run.require_memory", lambda *_: None
    )  # traces an iteration of the recipe's network
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(tmp_path / "image.png")
    file, files = tmp_path / "w.bin", special_files(tmp_path)
    settings = [part for setting in (*TINY, *DEMO) for part in ("--set", setting)]
    arguments = {
        "predict": lambda path: ["predict", path, tmp_path / "image.png", "--out", tmp_path / "out"],
        "eval": lambda path: ["eval", path],
        "init": lambda path: ["train", "demo", "--init", path, "--run", tmp_path / "run", *settings],
        "weights": lambda path: [
            "train", "demo", "--run", tmp_path / "run", *settings, "--set", f"model.weights={path}"
        ],
    }  # fmt: skip
    for what in (*CLI_SEEDS, "pipe", "device", "loop", "terabytes"):
        if isinstance(what, int):
            mutated(what, base, path := file)
        else:
            path = files[what][0]
        if command in ("init", "weights") and what == 11:
            continue  # a model's recipe is not read to train from it
        result = CliRunner().invoke(app, [*map(str, arguments[command](path))], env={"COLUMNS": "300"})
        assert isinstance(result.exception, SystemExit), what
        assert result.exit_code == 1, (what, result.output)
        assert "error: " in result.output
        assert "Traceback" not in result.output


def test_weights_to_train_from_are_refused_before_a_network_is_built(
    recipe: Recipe, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    mutated(KINDS.index("wide"), base, path)
    monkeypatch.setattr("fastuda.model.build.build_network", lambda _: pytest.fail("a network was built"))
    with pytest.raises(FastudaError, match=r"w\.safetensors: "):
        build_model(recipe, tmp_path, path)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///dev/zero", r"it is a (pipe|device)"),
        ("file://{}/pipe", r"it is a (pipe|device)"),
        ("file://{}", "a folder"),
        ("file:///a/..", "not an http"),
        ("http://[half", "not a URL"),
        ("http://localhost:port/w.pth", "cannot download"),
        ("file:///a%00b", "not an http"),
    ],
)
def test_urls_that_lead_to_no_file_are_refused(url: str, words: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FastudaError, match=words):
        fetch(url.format(tmp_path), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("[!.]*"))
    assert not list((tmp_path / "cache").glob(".*.part"))


def test_a_download_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pth").write_bytes(bytes(1000))
    monkeypatch.setattr("fastuda.model.download.MOST_BYTES", 999)
    with pytest.raises(FastudaError, match="as no weights have"):
        fetch((tmp_path / "w.pth").as_uri(), tmp_path / "cache")
    assert [name for name in os.listdir(tmp_path / "cache") if name != ".lock"] == []


def test_the_buffer_helper_writes_what_torch_writes(state: State) -> None:
    assert torch.load(io.BytesIO(torch_bytes(state, zipped=False)), weights_only=True).keys() == state.keys()
