"""What tests of the step share: small recipes, states and batches, and ways to compare states."""

from __future__ import annotations

from typing import Any

import torch
from tiny import NETWORK
from torch import Tensor, nn

from fastuda.data.loading.batch import DomainBatch
from fastuda.method.reference import blank_reference
from fastuda.method.state import TrainingState
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.passes import Passes
from fastuda.model.place import placed
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Recipe
from fastuda.recipe.file import load_recipe, preset_names
from fastuda.runtime.fast_path import FastPath
from fastuda_kernels.masked_mix import Normalisation

AS_IT_IS = Passes(Normalisation(mean=(0.0, 0.0, 0.0), scale=(1.0, 1.0, 1.0), bgr=False), None)
SMALL = [*NETWORK, "views.source_size=[64, 48]", "views.target_size=[64, 32]", "views.crop_size=[32, 32]"]
"""A network and views with which any recipe's iteration takes a moment."""
NUM_IMAGES = 3
"""Of a batch: with two, the last is the one after the first, and half of a batch is one image."""
_SAME = {
    *("cs2acdc", "cs2bdd", "cs2darkzurich", "gta2cs-dacs-mitb5", "gta2cs-daformer", "gta2cs-hrda", "gta2cs-mic"),
    *("gta2cs-mic-hrda", "gta2cs-mic-r101"),
}
STEPS = [name for name in preset_names() if name not in _SAME]
"""Presets whose iterations differ, on a network that all of them share; of today's the one with every part."""
CROP = (16, 16)
VIEW = (24, 40)
PLAIN = FastPath(
    amp=None,
    scaled=False,
    channels_last=True,
    grouped=False,
    gemm_aspp=False,
    fused_batch_norm=False,
    flat_update=False,
    compiled=False,
    graphed=False,
)


class Witness(DeepLabV2):
    """A network that notes what it is given, whether gradients are on, and whether BatchNorm is in training mode."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[set[float], bool, bool]] = []

    def forward(self, images: Tensor) -> Outputs:
        in_training = all(layer.training for layer in self.modules() if isinstance(layer, nn.BatchNorm2d))
        self.seen.append((set(images.flatten().tolist()), torch.is_grad_enabled(), in_training))
        return super().forward(images)


def tiny(name: str, *settings: str) -> Recipe:
    return load_recipe(name, [*NETWORK, *settings])


def begin(recipe: Recipe, kind: type[DeepLabV2] = DeepLabV2) -> TrainingState:
    torch.manual_seed(0)
    model = kind(
        len(recipe.classes.build()),
        depth=18,
        width=0.125,
        aspp=recipe.model.aspp,
        auxiliary=recipe.model.auxiliary,
    )
    return TrainingState.begin(
        model.train(),
        recipe.train.optimizer,
        10,
        recipe.method.ema_decay,
        ema_rises=recipe.method.ema_rises,
        reference=blank_reference(recipe),
    )


def on_gpu(recipe: Recipe) -> tuple[TrainingState, DomainBatch, DomainBatch, Passes, FastPath]:
    """A state on the GPU, laid out as the fast path has it, batches, and how passes go."""
    device = torch.device("cuda", torch.cuda.current_device())
    fast = FastPath.of(recipe.runtime, device)
    student, reference = placed(begin(recipe).student, fast, device), blank_reference(recipe)
    state = TrainingState.begin(
        student,
        recipe.train.optimizer,
        30,
        recipe.method.ema_decay,
        ema_rises=recipe.method.ema_rises,
        reference=reference and placed(reference, fast, device),
        scaled=fast.scaled,
        flat=fast.flat_update,
        precision=fast.amp,
    )
    source, target = (batch.map(lambda t: t.to(device)) for batch in batches(recipe))
    return state, source, target, Passes.of(recipe, device), fast


def small_network(recipe: Recipe, **changes: Any) -> DeepLabV2:
    """A network of the recipe's, of depth 18 unless changed, whose classifiers do not answer alike everywhere."""
    torch.manual_seed(1)
    told = {name: getattr(recipe.model, name) for name in ("width", "aspp", "input")}
    settings: dict[str, Any] = {"depth": 18, **told}
    model = DeepLabV2(len(recipe.classes.build()), **settings | changes)
    for branch in model.head.branches:
        torch.nn.init.normal_(branch.weight)  # type: ignore[arg-type]
    return model


def batches(recipe: Recipe, *, plain: bool = False) -> tuple[DomainBatch, DomainBatch]:
    """Source and target of three random images; `plain`: views of 1 and 2, crops of 10, 20 and 30, 40 instead."""
    generator = torch.Generator().manual_seed(0)
    num_classes = len(recipe.classes.build())

    def image(size: tuple[int, int], value: int) -> Tensor:
        if plain:
            return torch.full((NUM_IMAGES, *size, 3), value, dtype=torch.uint8)
        return torch.randint(0, 256, (NUM_IMAGES, *size, 3), dtype=torch.uint8, generator=generator)

    def label(size: tuple[int, int]) -> Tensor:
        labels = torch.randint(0, num_classes, (NUM_IMAGES, *size), dtype=torch.uint8, generator=generator)
        labels[:, 0, 0] = 255
        return labels

    whole, keys = recipe.views.whole, torch.rand(NUM_IMAGES, num_classes, generator=generator)
    source_boxes = torch.tensor([[2.0, 3.0, 20.0, 18.0], [0.0, 9.0, 12.0, 30.0], [6.0, 22.0, 18.0, 17.0]])
    target_boxes = torch.tensor([[4.0, 20.0, 16.0, 16.0], [0.0, 3.0, 16.0, 16.0], [8.0, 24.0, 16.0, 16.0]])
    source = DomainBatch(
        image(VIEW, 1) if whole else None,
        label(VIEW) if whole else None,
        *(image(CROP, 10), image(CROP, 20), label(CROP), source_boxes, keys, ["a", "b", "c"]),
    )
    target = DomainBatch(
        image(VIEW, 2) if whole else None,
        None,
        *(image(CROP, 30), image(CROP, 40), None, target_boxes, keys, ["d", "e", "f"]),
    )
    return source, target


def tensors(state: TrainingState) -> list[Tensor]:
    """Copies of all that an iteration changes."""
    return [tensor.clone() for tensor in state.tensors()]


def differ(ours: list[Tensor], expected: list[Tensor]) -> list[int]:
    """Which of two states' tensors are not equal."""
    return [i for i, (a, b) in enumerate(zip(ours, expected, strict=True)) if not torch.equal(a, b)]
