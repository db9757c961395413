"""Weights of Mix Transformers as NVlabs, the transformers library, DAFormer, HRDA and MIC publish them."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from mix_transformer_files import (
    as_library_published,
    daformer_head,
    daformer_logits,
    maps_of,
    mit_b0,
    scale_attention,
    segformer_head,
    segformer_logits,
    two_scale_logits,
)
from safetensors.torch import save_file
from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.evaluation.load import load
from fastuda.model.build import build_model, read_model
from fastuda.model.segformer.table import Table
from fastuda.model.segmenter import Segmenter, described
from fastuda.model.transformer.network import TransformerSegmenter
from fastuda.model.weights import read_weights, save_weights
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe

CPU = torch.device("cpu")
B0 = ["model.kind=segformer", "model.variant=mit-b0"]


def recipe(*settings: object) -> Recipe:
    return load_recipe("gta2cs", [*B0, *map(str, settings)])


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def encoder() -> dict[str, Tensor]:
    return {key: value for key, value in mit_b0().items() if not key.startswith("head.")}


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


def doubled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.double() for key, value in state.items()}


def assert_maps(model: Segmenter, images: Tensor, state: dict[str, Tensor]) -> None:
    """In fp64, in which the norms' two constants are far apart."""
    assert isinstance(model, TransformerSegmenter)
    exact = copy.deepcopy(model).eval().double()
    with torch.no_grad():
        for ours, theirs in zip(exact.backbone(images.double()), maps_of(doubled(state), images.double()), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_nvlabs_encoder_computes_what_its_own_keys_say(tmp_path: Path, images: Tensor) -> None:
    state = mit_b0()
    torch.save(state, tmp_path / "mit_b0.pth")
    imported = read_weights(tmp_path / "mit_b0.pth")
    assert (imported.origin, imported.input, imported.num_classes) == ("nvlabs", "rgb-imagenet", None)
    assert imported.dropped == dict.fromkeys(("head.weight", "head.bias"), "the ImageNet classifier")
    model, _ = build_model(recipe(f"model.weights={tmp_path / 'mit_b0.pth'}"), tmp_path)
    assert_maps(model, images, state)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("prefixed", [True, False])
def test_a_folder_of_the_hubs_in_its_published_keys(file: str, prefixed: bool, tmp_path: Path, images: Tensor) -> None:
    state = mit_b0()
    published = as_library_published(state)
    if not prefixed:
        published = {key.removeprefix("segformer."): value for key, value in published.items()}
    if file.endswith("bin"):
        torch.save(published, tmp_path / file)
    else:
        save_file({key: value.contiguous() for key, value in published.items()}, tmp_path / file, {"format": "pt"})
    model, _ = build_model(recipe(f"model.weights={tmp_path}"), tmp_path)
    assert_maps(model, images, state)
    assert read_weights(tmp_path / file).origin == "transformers"


def test_what_the_library_itself_reads_of_those_keys_is_the_same(tmp_path: Path, images: Tensor) -> None:
    from transformers import SegformerForImageClassification, SegformerModel

    published = as_library_published(mit_b0())
    save_file({key: value.contiguous() for key, value in published.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "segformer", "num_labels": 1000}')
    theirs = SegformerForImageClassification.from_pretrained(tmp_path).segformer.eval()
    model, _ = build_model(recipe(f"model.weights={tmp_path}"), tmp_path)
    assert isinstance(model, TransformerSegmenter)
    for name, module in theirs.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = model.backbone.get_submodule(name).eps
    with torch.no_grad():
        expected = theirs(images, output_hidden_states=True).hidden_states
        for ours, hidden in zip(model.eval().backbone(images), expected, strict=True):
            assert torch.equal(ours, hidden)
    # And what it writes today, under whatever names.
    SegformerModel(theirs.config).save_pretrained(tmp_path / "alone")
    theirs.save_pretrained(tmp_path / "again")
    again, _ = build_model(recipe(f"model.weights={tmp_path / 'again'}"), tmp_path)
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if "backbone" in key)


def test_the_librarys_own_segmenter_keeps_its_head(tmp_path: Path, images: Tensor) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(1)
    theirs = SegformerForSemanticSegmentation(SegformerConfig(num_labels=19, decoder_hidden_size=48)).eval()
    theirs.save_pretrained(tmp_path)
    model, resolved = build_model(recipe(f"model.weights={tmp_path}"), tmp_path)
    assert isinstance(resolved.model, Table)
    assert (resolved.model.head, resolved.model.head_channels) == ("mlp", 48)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images).logits, theirs(images).logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", ["trainer", "teacher and student", "plain"])
def test_a_released_daformer_answers_as_its_own_keys_say(
    form: str, tmp_path: Path, images: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    mit, head = encoder(), daformer_head(19)
    own = under("backbone.", mit) | under("decode_head.", head)
    other = {key: torch.zeros_like(value) for key, value in own.items()}
    forms = {
        "trainer": under("model.", own) | under("ema_model.", other) | under("imnet_model.", other),
        "teacher and student": under("model.", own) | under("ema_model.", other),
        "plain": own,
    }
    torch.save({"meta": {"epoch": 1}, "state_dict": forms[form], "optimizer": {}}, tmp_path / "iter_40000.pth")
    model, imported = read_model(tmp_path / "iter_40000.pth", CPU)
    exact, doubles = copy.deepcopy(model).double(), images.double()
    with torch.no_grad():
        expected = daformer_logits(doubled(head), maps_of(doubled(mit), doubles))
        torch.testing.assert_close(exact(doubles).logits, expected, rtol=1e-9, atol=1e-9)
    reasons = set(imported.dropped.values())
    assert ("the trainer's ImageNet copy" in reasons) == (form == "trainer")

    with caplog.at_level(logging.INFO):
        started, resolved = build_model(recipe(f"model.weights={tmp_path / 'iter_40000.pth'}"), tmp_path)
    assert isinstance(resolved.model, Table)
    assert resolved.model.head == "daformer"
    assert "sets model.head = daformer (the recipe said mlp)" in caplog.text
    assert all(torch.equal(value, started.state_dict()[key]) for key, value in model.state_dict().items())
    small = load_recipe("gta2cs", ["eval.size=[64, 32]"])
    answer = load(tmp_path / "iter_40000.pth", device="cpu", recipe=small)
    assert answer.recipe.model == model.settings
    assert answer.predict(np.zeros((40, 72, 3), np.uint8)).shape == (40, 72)


HRDA = under("decode_head.head.", daformer_head(19)) | under("decode_head.scale_attention.", scale_attention(19))


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_released_hrda_answers_from_both_scales_as_its_own_keys_say(
    prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastuda.model.segformer.importer._DETAIL", 64)
    mit = encoder()
    torch.save({"state_dict": under(prefix, under("backbone.", mit) | HRDA)}, tmp_path / "latest.pth")
    model, imported = read_model(tmp_path / "latest.pth", CPU)
    assert imported.dropped == {}
    images = torch.randn(1, 3, 72, 136, generator=torch.Generator().manual_seed(3)).double()
    exact = copy.deepcopy(model).double()
    states = (doubled(state) for state in (mit, daformer_head(19), scale_attention(19)))
    with torch.no_grad():
        expected = two_scale_logits(*states, images, 64)
        assert expected.std() > 0.1
        torch.testing.assert_close(exact(images).logits, expected, rtol=1e-9, atol=1e-9)

    with caplog.at_level(logging.INFO):
        started, resolved = build_model(recipe(f"model.weights={tmp_path / 'latest.pth'}"), tmp_path)
    assert "sets model.detail = 64 (the recipe said 0)" in caplog.text
    assert isinstance(resolved.model, Table)
    assert (resolved.model.detail, resolved.model.head, resolved.model.head_channels) == (64, "daformer", 256)
    assert all(torch.equal(value, started.state_dict()[key]) for key, value in model.state_dict().items())
    answer = load(tmp_path / "latest.pth", device="cpu", recipe=load_recipe("gta2cs", ["eval.size=[128, 64]"]))
    assert answer.recipe.model == model.settings
    assert answer.predict(np.zeros((40, 72, 3), np.uint8)).shape == (40, 72)


def test_two_scales_are_kept_by_a_file_and_taken_from_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"state_dict": under("backbone.", encoder()) | HRDA}, tmp_path / "hrda.pth")
    model, _ = read_model(tmp_path / "hrda.pth", CPU)
    assert isinstance(model.settings, Table)
    assert model.settings.detail == 512, "of all released ones"
    save_weights(tmp_path / "own.safetensors", model.state_dict(), described(model))
    again, _ = read_model(tmp_path / "own.safetensors", CPU)
    assert again.settings == model.settings
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    with pytest.raises(
        FastudaError,
        match=r"hrda\.pth: the recipe does not fit .*: views\.crop_size = \[256, 256\]: with model\.detail = 512 sides "
        r"have to be multiples of 8, and 512 at least: \[512, 512\] is",
    ):
        build_model(recipe(f"model.weights={tmp_path / 'hrda.pth'}", "views.crop_size=[256, 256]"), tmp_path)

    # An encoder alone leaves the recipe its two scales, a whole network of one scale does not.
    torch.save(mit_b0(), tmp_path / "mit_b0.pth")
    two = ("model.detail=64", "model.head=daformer")
    _, resolved = build_model(recipe(*two, f"model.weights={tmp_path / 'mit_b0.pth'}"), tmp_path)
    assert isinstance(resolved.model, Table)
    assert resolved.model.detail == 64
    one = under("backbone.", encoder()) | under("decode_head.", daformer_head(19))
    torch.save({"state_dict": one}, tmp_path / "daformer.pth")
    with caplog.at_level(logging.INFO):
        _, resolved = build_model(recipe(*two), tmp_path, init=tmp_path / "daformer.pth")
    assert isinstance(resolved.model, Table)
    assert resolved.model.detail == 0
    assert "sets model.detail = 0 (the recipe said 64)" in caplog.text


def test_mmsegmentations_segformer_answers_as_its_own_keys_say(tmp_path: Path, images: Tensor) -> None:
    mit, head = encoder(), segformer_head(19, 64)
    torch.save({"state_dict": under("backbone.", mit) | under("decode_head.", head)}, tmp_path / "segformer.pth")
    model, imported = read_model(tmp_path / "segformer.pth", CPU)
    assert {key.split(".")[1] for key in imported.dropped if "decode" in key} == {"conv_seg"}
    doubles = images.double()
    with torch.no_grad():
        expected = segformer_logits(doubled(head), maps_of(doubled(mit), doubles))
        torch.testing.assert_close(model.double()(doubles).logits, expected, rtol=1e-9, atol=1e-9)


def test_updates_beside_the_attention_begin_with_nothing(tmp_path: Path, images: Tensor) -> None:
    state = mit_b0()
    torch.save(state, tmp_path / "mit_b0.pth")
    model, _ = build_model(recipe(f"model.weights={tmp_path / 'mit_b0.pth'}", "model.lora=3"), tmp_path)
    assert_maps(model, images, state)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, 0, 0.1)
    save_weights(tmp_path / "own.safetensors", model.state_dict(), described(model))
    again, _ = read_model(tmp_path / "own.safetensors", CPU)
    assert again.settings == model.settings.model_copy(update={"weights": "random"})
    with torch.no_grad():
        torch.testing.assert_close(again(images).logits, model.eval()(images).logits)
    same, resolved = build_model(recipe(), tmp_path, init=tmp_path / "own.safetensors")
    assert isinstance(resolved.model, Table)
    assert resolved.model.lora == 3
    assert [key for key, value in model.state_dict().items() if not torch.equal(value, same.state_dict()[key])] == []


def test_a_whole_trained_network_takes_updates(tmp_path: Path) -> None:
    model, _ = build_model(recipe("model.weights=random"), tmp_path)
    save_weights(tmp_path / "own.safetensors", model.state_dict(), described(model))
    adapted, resolved = build_model(recipe("model.lora=2"), tmp_path, init=tmp_path / "own.safetensors")
    assert isinstance(resolved.model, Table)
    assert resolved.model.lora == 2
    key = "backbone.stages.0.blocks.0.attention.q_proj.{}weight"
    assert torch.equal(adapted.state_dict()[key.format("base_layer.")], model.state_dict()[key.format("")])


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    path, state = tmp_path / "mit_b0.pth", mit_b0()
    torch.save(state, path)
    with pytest.raises(FastudaError, match=r"of variant = mit-b0, the recipe wants mit-b1: --set model\.variant"):
        build_model(recipe("model.variant=mit-b1", f"model.weights={path}"), tmp_path)
    with pytest.raises(FastudaError, match=r"of the kind segformer, the recipe wants deeplab-v2: --set model\.kind"):
        build_model(load_recipe("gta2cs", [f"model.weights={path}"]), tmp_path)
    with pytest.raises(FastudaError, match="an encoder without a classifier; it cannot predict"):
        read_model(path, CPU)
    with pytest.raises(FastudaError, match="--init takes a whole trained network"):
        build_model(recipe(), tmp_path, init=path)

    def refused(changed: dict[str, Tensor], words: str) -> None:
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(FastudaError, match=words):
            build_model(recipe(f"model.weights={tmp_path / 'changed.pth'}"), tmp_path)

    short = {key: value for key, value in state.items() if key != "block1.0.attn.q.weight"}
    refused(short, r"1 keys do not fit segformer of variant = mit-b0: backbone\.stages\.0\.blocks\.0\.attention")
    part = {key: value for key, value in HRDA.items() if "scale_attention.conv_seg.bias" not in key}
    refused(under("backbone.", encoder()) | part, r"two_scales\.attention\.classify\.bias is missing")
    refused(state | {"block1.0.attn.gate": torch.ones(3)}, r"block1\.0\.attn\.gate has no place in the model")
    refused(state | {"block1.2.norm1.weight": torch.ones(32)}, r"of \[3, 2, 2, 2\] blocks and \[32, 64, 160, 256\]")
    refused(state | {"norm1.weight": torch.full((32,), torch.nan)}, "NaN or infinity")
    refused(
        state | {"block1.0.attn.kv.weight": torch.ones(64, 32).to_sparse()}, r"attn\.kv\.weight is sparse, not dense"
    )
    refused({"conv.weight": torch.ones(3)}, r"its keys \(conv\.weight\) are none that segformer takes of others: the")
    wide = under("backbone.", encoder()) | under("decode_head.", {"conv_seg.weight": torch.ones(19, 5000, 1, 1)})
    refused(wide, r"its classifier is 19×5000×1×1, and should be N×M×1×1 with M from 1 to 4096")
    wrong = under("backbone.", encoder()) | under("decode_head.", daformer_head(7))
    refused(wrong, "its classifier knows 7 classes, the recipe 19: choose the classes it was trained on")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FastudaError, match=r"empty: a folder without model\.safetensors or pytorch_model\.bin"):
        build_model(recipe(f"model.weights={tmp_path / 'empty'}"), tmp_path)
