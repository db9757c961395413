"""The method against its second writing (`second_writing.py`): every term, gradient, statistic and weight, in fp64."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from second_writing import Reading, SecondWriting
from steps import tiny
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.method.state import TrainingState
from fastuda.method.step import adaptation_step
from fastuda.model.deeplab.network import DeepLabV2
from fastuda.model.passes import Passes
from fastuda.recipe import Recipe

NUM_IMAGES = 3
VIEW, CROP = (40, 72), (32, 40)
NUM_ITERATIONS = 10
READINGS = {
    "gta2cs": Reading(),
    "gta2cs-released": Reading(released=True),
    "gta2cs-edge": Reading(edge=True),
    "gta2cs-edge+released": Reading(released=True, edge=True),
    "gta2cs+dsp-soft": Reading(dsp=True),
}
# Two roundings of a sum of some thousand products apart; a term that is another term is apart in the first digits.
RTOL = 1e-9
# What each sample of the source shows, so that no two choose among the same classes; 255 is ignored.
CLASSES = ((0, 1, 4, 6, 8, 12), (255, 2, 5, 7, 9, 10, 13, 16), (255, 3, 11, 15, 18))


def images(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Blocks of colour with noise, of another contrast each, uint8 [B, H, W, 3]."""
    contrasts = torch.tensor([255.0, 140.0, 60.0])[:, None, None, None]
    blocks = torch.rand(NUM_IMAGES, 3, 4, 5, generator=generator) * contrasts
    noise = torch.randn(NUM_IMAGES, 3, *size, generator=generator) * 8
    return (F.interpolate(blocks, size=size) + noise).clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()


def labels(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    drawn = []
    for classes in CLASSES:
        places = torch.randint(0, len(classes), (1, 1, 5, 6), generator=generator).float()
        places.view(-1)[: len(classes)] = torch.arange(len(classes)).float()  # each is there
        drawn.append(torch.tensor(classes)[F.interpolate(places, size=size)[0, 0].long()])
    return torch.stack(drawn).byte()


def batches(seed: int) -> tuple[DomainBatch, DomainBatch]:
    """Three unequal samples a domain, crops of three shapes."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[2.0, 5.0, 30.0, 40.0], [0.0, 0.0, 40.0, 44.0], [8.0, 30.0, 17.0, 21.0]])
    keys = torch.rand(NUM_IMAGES, 19, generator=generator)
    view, crop = (lambda: images(VIEW, generator)), (lambda: images(CROP, generator))
    names = ["a", "b", "c"]
    source = DomainBatch(view(), labels(VIEW, generator), crop(), crop(), labels(CROP, generator), boxes, keys, names)
    target = DomainBatch(view(), None, crop(), crop(), None, boxes, keys, names)
    return source, target


def settings(reading: Reading) -> list[str]:
    chosen = {"method.tau": reading.tau}
    chosen |= {f"train.optimizer.{name}": getattr(reading, name) for name in ("lr_backbone", "lr_head")}
    return [f"{name}={value}" for name, value in chosen.items()]


def begin(recipe: Recipe) -> TrainingState:
    torch.manual_seed(0)
    model = DeepLabV2(19, depth=18, width=0.125, aspp=recipe.model.aspp).double()
    # An untrained classifier says all classes alike; this one has opinions.
    for branch in (*model.head.branches, *model.auxiliary_head.branches):  # type: ignore[union-attr]
        torch.nn.init.normal_(branch.weight, 0, 0.08)  # type: ignore[arg-type]
    return TrainingState.begin(model.train(), recipe.train.optimizer, NUM_ITERATIONS, recipe.method.ema_decay)


def in_fp64(recipe: Recipe) -> Passes:
    passes = Passes.of(recipe, torch.device("cpu"))
    return replace(passes, normalisation=passes.normalisation._replace(dtype=torch.float64), channels_last=False)


def close(ours: Tensor, theirs: Tensor) -> bool:
    """To RTOL of the largest value, so that what is almost zero by cancellation is not held to its own size."""
    largest = max(float(theirs.abs().max()), 1e-300)
    return bool((ours - theirs).abs().max() <= RTOL * largest)


@pytest.mark.parametrize("name", READINGS)
def test_terms_gradients_statistics_and_weights_are_those_of_the_second_writing(name: str) -> None:
    reading = replace(READINGS[name], tau=0.17, lr_backbone=3e-2, lr_head=1e-2, num_iterations=NUM_ITERATIONS)
    recipe = tiny(name, *settings(reading))
    state = begin(recipe)
    second = SecondWriting(copy.deepcopy(state.student), reading)
    for k in range(3):
        source, target = batches(k)
        terms, gradients = second.train_once(source, target)
        losses = adaptation_step(state, source, target, recipe, in_fp64(recipe))
        assert losses.keys() == terms.keys()
        assert [key for key, term in terms.items() if not float(term) > 0] == []
        assert {key: float(loss) for key, loss in losses.items()} == {
            key: pytest.approx(float(term), rel=RTOL) for key, term in terms.items()
        }
        ours = {key: p.grad for key, p in state.student.named_parameters() if p.grad is not None}
        assert ours.keys() == gradients.keys()
        assert [key for key, theirs in gradients.items() if not close(ours[key], theirs)] == []
    theirs = second.student.state_dict()
    assert [key for key, value in state.student.state_dict().items() if not close(value, theirs[key])] == []
    averages = dict(state.averaged.named_parameters())
    assert [key for key, value in second.average.items() if not close(averages[key], value)] == []
    own = dict(state.student.named_parameters())
    momenta = {key: state.optimizer.state[own[key]]["momentum_buffer"] for key in second.momentum}
    assert [key for key, value in second.momentum.items() if not close(momenta[key], value)] == []
