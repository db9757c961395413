"""Weights of DINOv2 and DINOv3 as Facebook Research and the transformers library publish them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from vision_transformer_files import as_library_published, dinov2, dinov3, maps_of

from fastuda.errors import FastudaError
from fastuda.model.build import build_model, read_model
from fastuda.model.dinov2.family import DinoV2Family
from fastuda.model.dinov2.table import Table
from fastuda.model.segmenter import Segmenter, described
from fastuda.model.transformer.network import TransformerSegmenter
from fastuda.model.weights import read_weights, save_weights
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe

FITTING = {
    "dinov2": ["views.source_size=[56, 28]", "views.target_size=[56, 28]", "views.crop_size=[28, 28]"],
    "dinov3": ["views.source_size=[64, 32]", "views.target_size=[64, 32]", "views.crop_size=[32, 32]"],
}
SMALL = {
    "dinov2": [*FITTING["dinov2"], "eval.size=[56, 28]", "model.variant=small"],
    "dinov3": [*FITTING["dinov3"], "eval.size=[64, 32]", "model.variant=small", "model.accept_licence=true"],
}
MADE = {"dinov2": dinov2, "registers": lambda: dinov2(registers=True), "dinov3": dinov3}


def recipe(what: str, *settings: object) -> Recipe:
    kind = "dinov3" if what == "dinov3" else "dinov2"
    more = ["model.registers=true"] if what == "registers" else []
    return load_recipe("gta2cs", [f"model.kind={kind}", *SMALL[kind], *more, *map(str, settings)])


def images(what: str) -> Tensor:
    patch = 16 if what == "dinov3" else 14
    return torch.randn(2, 3, 2 * patch, 3 * patch, generator=torch.Generator().manual_seed(3))


def assert_maps(model: Segmenter, what: str, state: dict[str, Tensor]) -> None:
    """In fp64, but for position embeddings, which the library interpolates in fp32."""
    exact, doubles = copy.deepcopy(model).double(), images(what).double()
    expected = maps_of({key: value.double() for key, value in state.items()}, doubles)
    for ours, theirs in zip(maps(exact, doubles), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def maps(model: Segmenter, images: Tensor) -> list[Tensor]:
    assert isinstance(model, TransformerSegmenter)
    with torch.no_grad():
        found: list[Tensor] = model.eval().backbone(images)
    return found


@pytest.mark.parametrize("what", list(MADE))
def test_facebooks_file_computes_what_its_own_keys_say(what: str, tmp_path: Path) -> None:
    state = MADE[what]()
    torch.save(state, tmp_path / "vits_pretrain.pth")
    imported = read_weights(tmp_path / "vits_pretrain.pth")
    assert (imported.origin, imported.input, imported.num_classes) == ("facebook", "rgb-imagenet", None)
    assert "mask_token" in imported.dropped
    model, _ = build_model(recipe(what, f"model.weights={tmp_path / 'vits_pretrain.pth'}"), tmp_path)
    assert_maps(model, what, state)


@pytest.mark.parametrize("what", list(MADE))
def test_a_folder_of_the_hubs_in_its_published_keys(what: str, tmp_path: Path) -> None:
    state = MADE[what]()
    save_file(as_library_published(state), tmp_path / "model.safetensors", {"format": "pt"})
    assert read_weights(tmp_path / "model.safetensors").origin == "transformers"
    model, _ = build_model(recipe(what, f"model.weights={tmp_path}"), tmp_path)
    assert_maps(model, what, state)


def library_model(what: str, folder: Path) -> Any:
    import transformers

    name = {"dinov2": "Dinov2", "registers": "Dinov2WithRegisters", "dinov3": "DINOv3ViT"}[what]
    settings: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
    settings |= {"image_size": 518, "patch_size": 14} if what != "dinov3" else {"num_register_tokens": 4}
    getattr(transformers, f"{name}Config")(**settings).save_pretrained(folder)
    return getattr(transformers, f"{name}Model").from_pretrained(folder).eval()


@pytest.mark.parametrize("what", list(MADE))
def test_what_the_library_itself_reads_of_those_keys_is_the_same(what: str, tmp_path: Path) -> None:
    save_file(as_library_published(MADE[what]()), tmp_path / "model.safetensors", {"format": "pt"})
    theirs = library_model(what, tmp_path)
    model, _ = build_model(recipe(what, f"model.weights={tmp_path}"), tmp_path)
    with torch.no_grad():
        found = theirs(images(what), output_hidden_states=True)
        extra = 1 if what == "dinov2" else 5
        norm = theirs.norm if what == "dinov3" else theirs.layernorm
        for ours, block in zip(maps(model, images(what)), (2, 5, 8, 11), strict=True):
            expected = norm(found.hidden_states[block + 1])[:, extra:].mT.unflatten(2, (2, 3))
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.flatten(2).mT, found.last_hidden_state[:, extra:], rtol=1e-5, atol=1e-5)
    # And what it writes today, under whatever names.
    theirs.save_pretrained(tmp_path / "again")
    again, _ = build_model(recipe(what, f"model.weights={tmp_path / 'again'}"), tmp_path)
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items() if "backbone" in key)


def test_images_of_the_size_it_was_trained_on_have_their_positions_as_they_are(tmp_path: Path) -> None:
    model, _ = build_model(recipe("dinov2", "model.weights=random"), tmp_path)
    embeddings = model.get_submodule("backbone.embeddings")
    assert isinstance(embeddings.position_embeddings, Tensor)
    with torch.no_grad():
        embedded = embeddings(torch.zeros(1, 3, 518, 518))
    torch.testing.assert_close(embedded[:, 1:], embeddings.position_embeddings[:, 1:])


def test_own_files_say_all_of_the_network(tmp_path: Path) -> None:
    model, _ = build_model(
        recipe("registers", "model.weights=random", "model.head=mlp", "model.head_channels=8"), Path()
    )
    save_weights(tmp_path / "own.safetensors", model.state_dict(), described(model))
    again, imported = read_model(tmp_path / "own.safetensors", torch.device("cpu"))
    assert imported.origin == "fastuda"
    with torch.no_grad():
        torch.testing.assert_close(again(images("")).logits, model.eval()(images("")).logits)
    with pytest.raises(FastudaError, match=r"of registers = true, the recipe wants false: --set model\.registers=true"):
        build_model(recipe("dinov2"), tmp_path, init=tmp_path / "own.safetensors")


def test_updates_beside_the_attention_take_published_weights(tmp_path: Path) -> None:
    state = dinov2()
    torch.save(state, tmp_path / "vits_pretrain.pth")
    settings = (f"model.weights={tmp_path / 'vits_pretrain.pth'}", "model.lora=2", "model.head=daformer")
    model, _ = build_model(recipe("dinov2", *settings), tmp_path)
    assert_maps(model, "", state)


def test_the_licence_has_to_be_accepted_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", never)
    save_file(as_library_published(dinov3()), tmp_path / "model.safetensors")
    torch.save(dinov3(), tmp_path / "facebook.pth")
    for weights in ("lvd1689m", "hub:facebook/dinov3-vits16", tmp_path, tmp_path / "facebook.pth"):
        unasked = recipe("dinov3", "model.accept_licence=false", f"model.weights={weights}")
        with pytest.raises(FastudaError, match=r"under the DINOv3 licence .* --set model\.accept_licence=true"):
            build_model(unasked, tmp_path)
    model, _ = build_model(recipe("dinov3", "model.accept_licence=false", "model.weights=random"), tmp_path)
    save_weights(tmp_path / "own.safetensors", model.state_dict(), described(model))
    build_model(recipe("dinov3", "model.accept_licence=false"), tmp_path, init=tmp_path / "own.safetensors")


def test_words_stand_for_repositories() -> None:
    family = DinoV2Family()
    for settings, name in (
        (Table(variant="large"), "facebook/dinov2-large"),
        (Table(variant="small", registers=True), "facebook/dinov2-with-registers-small"),
        (Table(weights="random"), None),
    ):
        assert family.repository(settings) == name


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    state, path = dinov2(), tmp_path / "vits.pth"
    torch.save(state, path)
    with pytest.raises(FastudaError, match=r"of variant = small, the recipe wants base: --set model\.variant=small"):
        build_model(recipe("dinov2", "model.variant=base", f"model.weights={path}"), tmp_path)
    with pytest.raises(FastudaError, match=r"of registers = false, the recipe wants true: --set model\.registers"):
        build_model(recipe("registers", f"model.weights={path}"), tmp_path)
    with pytest.raises(FastudaError, match=r"of the kind dinov2, the recipe wants dinov3: --set model\.kind=dinov2"):
        build_model(recipe("dinov3", f"model.weights={path}"), tmp_path)

    def refused(changed: dict[str, Tensor], words: str) -> None:
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(FastudaError, match=words):
            build_model(recipe("dinov2", f"model.weights={tmp_path / 'changed.pth'}"), tmp_path)

    refused(state | {"pos_embed": torch.ones(1, 257, 384)}, r"position_embeddings is 1×257×384, not 1×1370×384")
    refused({key: value for key, value in state.items() if key != "blocks.3.ls2.gamma"}, r"layers\.3\.layer_scale2")
    refused(state | {"norm.weight": torch.ones(1536)}, r"of 12 blocks and 1536 features, which is none of small, base")
    refused({"conv.weight": torch.ones(3)}, r"its keys \(conv\.weight\) are none that dinov2 takes of others: the tran")
