"""SegFormer, DINOv2 and DINOv3 through all that fastuda does with a network."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from transformers_small import KINDS, SIDES, images, network, small

from fastuda.errors import UsageError
from fastuda.method.optimizer import made_optimizer
from fastuda.model.build import build_network
from fastuda.model.passes import teaching
from fastuda.model.segmenter import Segmenter
from fastuda.recipe.file import load_recipe

NARROW = "model.head_channels=8"
HEADS = ["mlp", "daformer", "linear"]


# The network.


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_shapes_positions_and_features(kind: str, head: str) -> None:
    model = network(kind, f"model.head={head}").eval()
    side, stride = SIDES[kind], {"segformer": 4, "dinov2": 14, "dinov3": 16}[kind]
    assert model.output_stride == stride
    with torch.no_grad():
        outputs = model(images(kind), features=True)
        assert model(images(kind)).features is None
    rows, columns = side // stride, 2 * side // stride
    assert outputs.logits.shape == (2, 19, rows, columns)
    assert outputs.auxiliary is None
    assert not outputs.align_corners
    assert model.settings is not None
    assert model.settings.positions((2 * side, side)) == rows * columns
    deepest = (1, 2) if kind == "segformer" else (rows, columns)
    assert outputs.features is not None
    assert outputs.features.shape == (2, model.backbone.channels[-1], *deepest)


@pytest.mark.parametrize(("width", "height"), [(32, 29), (33, 47), (100, 31), (64, 28), (28, 64)])
def test_a_mix_transformer_takes_any_image_that_leaves_a_key(width: int, height: int) -> None:
    table = small("segformer").model
    model = network("segformer").eval()
    if not table.positions((width, height)):
        assert table.refuses((width, height)) == (
            "too small for the network, which has no output for less than [29, 29]"
        )
        with pytest.raises(RuntimeError), torch.no_grad():
            model(torch.zeros(1, 3, height, width))
        return
    with torch.no_grad():
        assert model(torch.zeros(1, 3, height, width)).logits[0, 0].numel() == table.positions((width, height))


def test_images_of_no_whole_patches_are_refused_with_the_nearest_that_are() -> None:
    words = r"views\.crop_size = \[30, 28\]: sides have to be multiples of 14.*: \[28, 28\] and \[42, 28\] are"
    with pytest.raises(UsageError, match=words):
        small("dinov2", "views.crop_size=[30, 28]")
    with pytest.raises(UsageError, match=r"eval\.size = \[8, 32\]: .* multiples of 16.*: \[16, 32\] is"):
        small("dinov3", "eval.size=[8, 32]")
    with pytest.raises(UsageError, match=r"eval\.size = \[56, 28\] at eval\.scales = 0\.75: .* multiples of 14"):
        small("dinov2", "eval.scales=[0.75]")


@pytest.mark.parametrize("variant", ["mit-b6", "giant"])
def test_a_variant_that_there_is_not(variant: str) -> None:
    with pytest.raises(UsageError, match=r"model\.variant"):
        small("segformer", f"model.variant={variant}")


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize(
    "settings",
    [
        *(["model.kind=" + kind, "model.variant=" + ("mit-b0" if kind == "segformer" else "small")] for kind in KINDS),
        ["model.depth=18", "model.width=0.125"],
        ["model.kind=efficientnet-lite"],
        ["model.kind=efficientnet-lite", "model.skip=4"],
    ],
)
def test_encoding_gives_the_features_without_the_heads(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["views.source_size=[224, 112]", "views.target_size=[224, 112]", "views.crop_size=[112, 112]"]
    model = build_network(load_recipe("gta2cs", [*sizes, "eval.size=[224, 112]", *settings])).eval()
    image = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        expected = model(image, features=True).features
        assert torch.equal(Segmenter.encode(model, image), expected)

        def never(*arguments: object) -> None:
            raise AssertionError("a head was computed")

        monkeypatch.setattr(model.head, "forward", never)
        assert torch.equal(model.encode(image), expected)


# Its parameters.


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("more", [[], ["model.lora=2"]])
def test_every_trained_parameter_learns_and_is_of_a_group(kind: str, head: str, more: list[str]) -> None:
    registers = ["model.registers=true"] if kind == "dinov2" else []
    model = network(kind, f"model.head={head}", "model.stochastic_depth=0", *more, *registers).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which hides the other factor
            nn.init.ones_(parameter)
    model(images(kind)).logits.square().sum().backward()
    listed = [parameter for group in model.parameter_groups() for parameter in group.parameters]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert Counter(listed) == Counter(trained)
    unreached = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert unreached == []
    if more:
        names = {name for name, one in model.named_parameters() if one.requires_grad}
        assert all(".lora_" in name or name.startswith("head.") for name in names)
        assert sum(".lora_" in name for name in names) == 2 * 4 * 4, "two factors, four projections, four blocks"


DEPTHS = {
    "segformer": {
        "stages.0.patch_embeddings.proj.weight": 0,
        "stages.0.blocks.0.mlp.fc1.weight": 1,
        "stages.0.layer_norm.weight": 2,
        "stages.1.patch_embeddings.proj.weight": 3,
        "stages.2.blocks.1.attention.q_proj.weight": 6,
        "stages.3.blocks.1.mlp.fc2.weight": 8,
        "stages.3.layer_norm.bias": 8,
    },
    "dinov2": {
        "embeddings.patch_embeddings.projection.weight": 0,
        "embeddings.position_embeddings": 0,
        "layers.0.norm1.weight": 1,
        "layers.11.mlp.fc2.weight": 12,
        "norm.weight": 12,
    },
    "dinov3": {"embeddings.register_tokens": 0, "layers.5.layer_scale1.lambda1": 6, "norm.bias": 12},
}


@pytest.mark.parametrize("kind", KINDS)
def test_depths_decay_and_rates(kind: str) -> None:
    model = network(kind)
    names = {parameter: name for name, parameter in model.named_parameters()}
    places = {names[one]: group for group in model.parameter_groups() for one in group.parameters}
    for name, depth in DEPTHS[kind].items():
        assert places[f"backbone.{name}"].depth == depth, name
    deepest = places["head.classify.weight"].depth
    assert deepest == 1 + max(DEPTHS[kind].values())
    for name, group in places.items():
        matrix = name.endswith(".weight") and "norm" not in name
        assert group.decays == matrix, name
        assert group.name == name.partition(".")[0]

    optimizer = ["kind=adamw", "lr_backbone=1e-3", "lr_head=1e-2", "layer_decay=0.5", "weight_decay=0.1"]
    recipe = small(kind, *(f"train.optimizer.{one}" for one in optimizer))
    made = made_optimizer(model, recipe.train.optimizer, torch.tensor(0))
    rates = {one: (group["base_rate"], group["weight_decay"]) for group in made.param_groups for one in group["params"]}
    for name, depth in DEPTHS[kind].items():
        rate, decay = rates[model.get_parameter(f"backbone.{name}")]
        assert rate == pytest.approx(1e-3 * 0.5 ** (deepest - depth)), name
        assert decay == (0.1 if places[f"backbone.{name}"].decays else 0)
    assert rates[model.get_parameter("head.classify.weight")] == (pytest.approx(1e-2), 0.1)


# What draws.


@pytest.mark.usefixtures("shallow_transformers")
@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_draws_nothing_and_a_student_does(kind: str) -> None:
    model = network(kind, "model.stochastic_depth=0.5", "model.head=mlp", NARROW, "model.lora=2").train()
    before = torch.get_rng_state()
    with teaching(model), torch.no_grad():
        one, same = model(images(kind)).logits, model(images(kind)).logits
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    with torch.no_grad():
        assert not torch.equal(model.backbone(images(kind))[-1], model.backbone(images(kind))[-1])
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_stochastic_depth_is_the_librarys(kind: str) -> None:
    """From 0 to the rate block by block in a Mix Transformer, the same for every block else."""
    model = network(kind, "model.stochastic_depth=0.35")
    found = [module.drop_prob for module in model.backbone.modules() if hasattr(module, "drop_prob")]
    expected = [0.35 * i / 7 for i in range(1, 8)] if kind == "segformer" else [0.35] * 12
    assert found == pytest.approx(expected)
    assert not any(hasattr(module, "drop_prob") for module in network("dinov2").modules()), "none unless asked for"


def test_recipes_know_the_tables_without_the_libraries() -> None:
    import subprocess
    import sys

    code = (
        "import sys, fastuda; from fastuda.recipe.file import load_recipe; from fastuda.model.family import families; "
        "load_recipe('gta2cs', ['model.kind=segformer']); print(len(families())); "
        "print(sorted({'transformers', 'peft', 'huggingface_hub', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[1:2] == ["[]"], done.stdout + done.stderr
