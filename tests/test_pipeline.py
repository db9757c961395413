"""Batches: the right pixels under the right label, the same ones every time, each sample once an epoch."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastuda.data.loading.batch import DomainBatch
from fastuda.data.loading.evaluation_loader import EvaluationLoader
from fastuda.data.loading.sampling import NO_BLUR, draw_augmentation
from fastuda.data.loading.training_loader import TrainingLoader
from fastuda.data.packing.pack import Packed
from fastuda.recipe import Recipe

CPU = torch.device("cpu")
WIDTH, HEIGHT = 120, 60
NUM_SAMPLES = 7
NUM_CLASSES = 72
CALM = ["views.blur=0", "jitter.probability=0", "jitter.grey=0", "jitter.blur=0"]

Pixels = NDArray[np.uint8]


def place_image(number: int) -> Pixels:
    """Red tells a pixel's column (twice), green its row (four times), blue the image."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.stack([2 * columns, 4 * rows, np.full_like(rows, 30 * number)], -1).astype(np.uint8)


def place_label(number: int) -> Pixels:
    """A class for every square of 10 pixels; the first image has an ignored frame as well."""
    rows, columns = np.indices((HEIGHT, WIDTH)) // 10
    label = (rows * (WIDTH // 10) + columns).astype(np.uint8)
    if number == 0:
        label[:3] = 255
    return label


def noise(number: int) -> Pixels:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    def build(*settings: str) -> Recipe:
        names = [f"square {i}" for i in range(NUM_CLASSES)]
        size = f"[{WIDTH}, {HEIGHT}]"
        views = [f"views.source_size={size}", f"views.target_size={size}", "views.crop_size=[48, 40]"]
        return tiny_recipe(f"classes.names={names}", *views, *settings)

    return build


@pytest.fixture
def places(pack: Callable[..., Packed], recipe: Callable[..., Recipe]) -> Packed:
    numbers = range(NUM_SAMPLES)
    return pack(recipe(), [place_image(i) for i in numbers], [place_label(i) for i in numbers])


@pytest.fixture
def unlabelled(pack: Callable[..., Packed], recipe: Callable[..., Recipe]) -> Packed:
    return pack(recipe(), [noise(i) for i in range(NUM_SAMPLES)])


def batches(packed: Packed, recipe: Recipe, count: int, domain: str = "source", start: int = 0) -> list[DomainBatch]:
    return list(islice(TrainingLoader(packed, domain, recipe, CPU, start_iteration=start), count))  # type: ignore[arg-type]


def assert_equal(one: Iterable[DomainBatch], other: Iterable[DomainBatch]) -> None:
    for a, b in zip(one, other, strict=True):
        for field, x, y in zip(a._fields, a, b, strict=True):
            assert torch.equal(x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else x == y, field


def levels(image: Tensor, channel: int) -> NDArray[np.float64]:
    return image[..., channel].numpy().astype(float)


def test_source_batches_have_these_fields(places: Packed, recipe: Callable[..., Recipe]) -> None:
    (batch,) = batches(places, recipe("train.batch_size=3"), 1)
    fields: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "view": ((3, HEIGHT, WIDTH, 3), torch.uint8),
        "view_label": ((3, HEIGHT, WIDTH), torch.uint8),
        "weak": ((3, 40, 48, 3), torch.uint8),
        "strong": ((3, 40, 48, 3), torch.uint8),
        "label": ((3, 40, 48), torch.uint8),
        "boxes": ((3, 4), torch.float32),
        "class_keys": ((3, NUM_CLASSES), torch.float32),
    }
    found = {name: value for name, value in batch._asdict().items() if isinstance(value, Tensor)}
    assert {name: (tuple(value.shape), value.dtype) for name, value in found.items()} == fields
    assert len(batch.names) == 3


def test_target_batches_have_no_labels(unlabelled: Packed, recipe: Callable[..., Recipe]) -> None:
    (batch,) = batches(unlabelled, recipe(), 1, "target")
    assert batch.view is not None
    assert batch.view_label is batch.label is None


def test_a_recipe_of_crops_alone_has_no_views(places: Packed, recipe: Callable[..., Recipe]) -> None:
    (batch,) = batches(places, recipe("views.whole=false"), 1)
    assert batch.view is batch.view_label is None
    assert batch.label is not None


def test_crops_alone_are_the_same_crops(places: Packed, recipe: Callable[..., Recipe]) -> None:
    whole, alone = batches(places, recipe(), 5), batches(places, recipe("views.whole=false"), 5)
    assert_equal([one._replace(view=None, view_label=None) for one in whole], alone)


def test_views_are_the_packed_pictures_half_of_them_mirrored(places: Packed, recipe: Callable[..., Recipe]) -> None:
    mirrored = []
    for batch in batches(places, recipe(*CALM), 20):
        assert batch.view is not None
        assert batch.view_label is not None
        for view, label, name in zip(batch.view.numpy(), batch.view_label.numpy(), batch.names, strict=True):
            image, expected = place_image(int(name)), place_label(int(name))
            mirrored.append(bool(view[0, 0, 0] > 100))
            step = -1 if mirrored[-1] else 1
            assert np.array_equal(view, image[:, ::step])
            assert np.array_equal(label, expected[:, ::step])
    assert 10 <= sum(mirrored) <= 30


def test_every_pixel_of_a_crop_and_its_label_come_from_its_place_in_the_box(
    places: Packed, recipe: Callable[..., Recipe]
) -> None:
    mirrored = 0
    for batch in batches(places, recipe(*CALM), 20):
        assert batch.view is not None
        assert batch.label is not None
        for i, name in enumerate(batch.names):
            top, left, height, width = batch.boxes[i].tolist()
            flip = bool(batch.view[i, 0, 0, 0] > 100)
            mirrored += flip
            rows = top + (np.arange(40) + 0.5) * height / 40
            columns = left + (np.arange(48) + 0.5) * width / 48
            columns = WIDTH - columns if flip else columns
            # Within two pixels of the picture's edge, a resize has nothing to interpolate with.
            inner = np.ix_((rows > 2) & (rows < HEIGHT - 2), (columns > 2) & (columns < WIDTH - 2))
            red, green, blue = (levels(batch.weak[i], channel)[inner] for channel in range(3))
            assert np.abs(red - 2 * (columns[None] - 0.5).repeat(40, 0)[inner]).max() <= 1
            assert np.abs(green - 4 * (rows[:, None] - 0.5).repeat(48, 1)[inner]).max() <= 1
            assert (blue == 30 * int(name)).all()
            # A centre that falls on the line between two pixels may be given to either.
            clear = np.ix_(np.abs(rows - rows.round()) > 1e-3, np.abs(columns - columns.round()) > 1e-3)
            nearest = place_label(int(name))[np.ix_(rows.astype(int), columns.astype(int))]
            assert np.array_equal(batch.label[i].numpy()[clear], nearest[clear])
    assert 10 <= mirrored <= 30


def test_cut_crops_are_the_pictures_pixels_as_they_are(places: Packed, recipe: Callable[..., Recipe]) -> None:
    for batch in batches(places, recipe(*CALM, "views.crop=cut"), 10):
        assert batch.view is not None
        assert batch.view_label is not None
        assert batch.label is not None
        for i, (top, left, height, width) in enumerate(batch.boxes.int().tolist()):
            window = (slice(top, top + height), slice(left, left + width))
            assert (height, width) == (40, 48)
            assert torch.equal(batch.weak[i], batch.view[i][window])
            assert torch.equal(batch.label[i], batch.view_label[i][window])


def test_crops_are_pillows_antialiased_resize_of_the_box(unlabelled: Packed, recipe: Callable[..., Recipe]) -> None:
    compared = 0
    for batch in batches(unlabelled, recipe("views.crop_size=[24, 20]"), 25, "target"):
        assert batch.view is not None
        for view, weak, box in zip(batch.view, batch.weak, batch.boxes.tolist(), strict=True):
            top, left, height, width = box
            # Beyond the picture's edge DALI repeats pixels and Pillow has none.
            if top < 3 or left < 3 or top + height > HEIGHT - 3 or left + width > WIDTH - 3:
                continue
            area = (left, top, left + width, top + height)
            resized = Image.fromarray(view.numpy()).resize((24, 20), Image.Resampling.BILINEAR, box=area)
            assert np.abs(np.asarray(resized).astype(int) - weak.numpy()).max() <= 1
            compared += 1
    assert compared >= 8


@pytest.mark.parametrize("antialias", ["false", "true"])
def test_crops_without_antialiasing_are_opencvs_linear_resize_of_the_box(
    antialias: str, unlabelled: Packed, recipe: Callable[..., Recipe]
) -> None:
    compared, gradients = 0, []
    for batch in batches(unlabelled, recipe("views.crop_size=[24, 20]", f"views.antialias={antialias}"), 25, "target"):
        assert batch.view is not None
        for view, weak, box in zip(batch.view, batch.weak, batch.boxes.int().tolist(), strict=True):
            top, left, height, width = box
            resized = cv2.resize(view.numpy()[top : top + height, left : left + width], (24, 20)).astype(int)
            if antialias == "false":
                # OpenCV's weights have 11 bits; at the box's edge DALI reads the view's pixels behind it.
                assert np.abs(resized - weak.numpy())[1:-1, 1:-1].max() <= 1
            gradients.append(np.square(np.diff(weak.numpy().astype(float), axis=1)).mean())
            gradients[-1] /= np.square(np.diff(resized, axis=1)).mean()
            compared += 1
    assert compared >= 40
    # Antialiasing takes gradient energy away wherever a crop is made smaller.
    assert (np.mean(gradients) > 0.97) == (antialias == "false")


def test_labels_hold_only_values_that_the_pack_holds(places: Packed, recipe: Callable[..., Recipe]) -> None:
    seen = set()
    for batch in batches(places, recipe(), 20):
        assert batch.label is not None
        for label, name in zip(batch.label, batch.names, strict=True):
            values = set(label.unique().tolist())
            assert values <= set(np.unique(place_label(int(name))).tolist())
            seen |= values
    assert seen == {*range(NUM_CLASSES), 255}


def gaussian(image: Tensor, sigma: float, window: int) -> NDArray[np.float64]:
    """A Gaussian blur of [H, W, 3] by its definition."""
    weights = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * sigma**2))
    padded = np.pad(image.numpy().astype(float), ((window // 2,) * 2, (window // 2,) * 2, (0, 0)), mode="reflect")
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis)
        padded = windows @ (weights / weights.sum())
    return padded


def test_views_are_blurred_with_the_drawn_radius(unlabelled: Packed, recipe: Callable[..., Recipe]) -> None:
    settings = recipe("views.blur_radius=2")
    sharp, blurred = (batches(unlabelled, recipe(*extra), 10, "target") for extra in (CALM, ["views.blur_radius=2"]))
    num_blurred = 0
    for iteration, (before, after) in enumerate(zip(sharp, blurred, strict=True)):
        assert before.view is not None
        assert after.view is not None
        for i in range(2):
            position = 2 * iteration + i
            draw = draw_augmentation(0, "target", position, (WIDTH, HEIGHT), 72, settings.views, settings.jitter)
            num_blurred += draw.blur != NO_BLUR
            assert np.abs(gaussian(before.view[i], *draw.blur) - after.view[i].numpy()).max() <= 1
    assert 5 <= num_blurred <= 15


@pytest.mark.parametrize(("kernel", "sigma"), [(3, 0.8), (5, 1.1)])
def test_strong_crops_are_blurred_with_opencvs_kernels(
    kernel: int, sigma: float, unlabelled: Packed, recipe: Callable[..., Recipe]
) -> None:
    matched = 0
    for batch in batches(unlabelled, recipe(*CALM, "jitter.blur=1"), 5, "target"):
        for weak, strong in zip(batch.weak, batch.strong, strict=True):
            matched += np.abs(gaussian(weak, sigma, kernel) - strong.numpy()).max() <= 1
    assert 1 <= matched < 10


def test_without_jitter_the_strong_crop_is_the_weak_one(unlabelled: Packed, recipe: Callable[..., Recipe]) -> None:
    calm = [setting for setting in CALM if setting != "views.blur=0"]
    for batch in batches(unlabelled, recipe(*calm), 5, "target"):
        assert torch.equal(batch.strong, batch.weak)


@pytest.mark.parametrize("change", ["jitter.probability=1", "jitter.grey=1", "jitter.blur=1"])
def test_each_part_of_the_jitter_changes_the_strong_crop_alone(
    change: str, unlabelled: Packed, recipe: Callable[..., Recipe]
) -> None:
    calm = batches(unlabelled, recipe(*CALM), 5, "target")
    changed = batches(unlabelled, recipe(*CALM, change), 5, "target")
    assert_equal([one._replace(strong=one.weak) for one in changed], calm)
    for batch in changed:
        for strong, weak in zip(batch.strong, batch.weak, strict=True):
            assert not torch.equal(strong, weak)


def test_source_jitter_changes_the_source_view_alone(places: Packed, recipe: Callable[..., Recipe]) -> None:
    plain, coloured = batches(places, recipe(), 5), batches(places, recipe("views.source_jitter=1"), 5)
    assert_equal([one._replace(view=None) for one in plain], [one._replace(view=None) for one in coloured])
    for before, after in zip(plain, coloured, strict=True):
        assert before.view is not None
        assert after.view is not None
        assert all(not torch.equal(a, b) for a, b in zip(before.view, after.view, strict=True))


def test_source_jitter_leaves_the_target_alone(unlabelled: Packed, recipe: Callable[..., Recipe]) -> None:
    assert_equal(
        batches(unlabelled, recipe(), 3, "target"), batches(unlabelled, recipe("views.source_jitter=1"), 3, "target")
    )


def test_two_loaders_give_the_same_bits(places: Packed, recipe: Callable[..., Recipe]) -> None:
    assert_equal(batches(places, recipe(), 6), batches(places, recipe("runtime.loader_threads=2"), 6))


def test_another_seed_gives_other_batches(places: Packed, recipe: Callable[..., Recipe]) -> None:
    (one,), (other,) = batches(places, recipe(), 1), batches(places, recipe("seed=1"), 1)
    assert not torch.equal(one.boxes, other.boxes)


@pytest.mark.parametrize("start", [1, 3, 7])
def test_a_loader_that_starts_later_continues_exactly(
    start: int, places: Packed, recipe: Callable[..., Recipe]
) -> None:
    assert_equal(batches(places, recipe(), 10)[start:], batches(places, recipe(), 10 - start, start=start))


def test_every_sample_comes_once_an_epoch(places: Packed, recipe: Callable[..., Recipe]) -> None:
    names = [name for batch in batches(places, recipe(), 14) for name in batch.names]
    for epoch in range(4):
        assert sorted(names[NUM_SAMPLES * epoch : NUM_SAMPLES * (epoch + 1)]) == places.names


def test_names_are_told_for_any_iteration(places: Packed, recipe: Callable[..., Recipe]) -> None:
    names = [batch.names for batch in batches(places, recipe(), 6)]
    assert [TrainingLoader.names_at(places, "source", recipe(), i) for i in range(6)] == names


def test_two_ranks_share_out_the_batches_of_one(places: Packed, recipe: Callable[..., Recipe]) -> None:
    alone = batches(places, recipe("train.batch_size=4"), 3)
    ranks = [
        list(islice(TrainingLoader(places, "source", recipe(), CPU, rank=rank, num_ranks=2), 3)) for rank in (0, 1)
    ]
    for whole, first, second in zip(alone, *ranks, strict=True):
        assert whole.names == first.names + second.names
        for field in ("view", "label", "strong", "class_keys"):
            parts = torch.cat([getattr(first, field), getattr(second, field)])
            assert torch.equal(getattr(whole, field), parts)


@pytest.mark.parametrize(("format", "bound"), [("raw", 0), ("jpeg", 8)])
def test_every_pack_format_gives_the_batches_of_png(
    format: str, bound: int, pack: Callable[..., Packed], recipe: Callable[..., Recipe]
) -> None:
    pictures = [place_image(i) for i in range(3)], [place_label(i) for i in range(3)]
    png, other = (batches(pack(recipe(), *pictures, format=kind), recipe(*CALM), 3) for kind in ("png", format))
    for a, b in zip(png, other, strict=True):
        for field in ("view", "weak", "strong"):
            assert (getattr(a, field).int() - getattr(b, field).int()).abs().max() <= bound
    assert_equal(
        *([one._replace(view=None, weak=one.label, strong=one.label) for one in many] for many in (png, other))
    )


def test_evaluation_goes_through_the_split_once_in_order(places: Packed) -> None:
    loader = EvaluationLoader(places, 3, 1, CPU)
    assert len(loader) == NUM_SAMPLES
    for _ in range(2):
        found = list(loader)
        assert [len(batch.names) for batch in found] == [3, 3, 1]
        assert [name for batch in found for name in batch.names] == places.names
        images = torch.cat([batch.images for batch in found])
        assert np.array_equal(images.numpy(), np.stack([place_image(i) for i in range(NUM_SAMPLES)]))
        labels = [label for batch in found for label in batch.labels]
        assert all(np.array_equal(label.numpy(), place_label(i)) for i, label in enumerate(labels))


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_a_limit_spreads_the_images_over_the_split(limit: int, places: Packed) -> None:
    loader = EvaluationLoader(places, 2, 1, CPU, limit=limit)
    names = [name for batch in loader for name in batch.names]
    expected = {1: ["000"], 3: ["000", "002", "004"], 7: places.names, 100: places.names}[limit]
    assert names == expected
    assert len(loader) == len(expected)


def test_labels_can_be_left_out(unlabelled: Packed) -> None:
    found = list(EvaluationLoader(unlabelled, 4, 1, CPU, labelled=False))
    assert [batch.labels for batch in found] == [[], []]
    assert np.array_equal(found[1].images[0].numpy(), noise(4))


def test_labels_may_have_sizes_of_their_own(pack: Callable[..., Packed], recipe: Callable[..., Recipe]) -> None:
    images = [np.zeros((40, 64, 3), np.uint8), np.zeros((30, 50, 3), np.uint8)]
    labels = [np.full((40, 64), 3, np.uint8), np.full((30, 50), 4, np.uint8)]
    packed = pack(recipe(), images, labels, size=(32, 16), own_label_size=True)
    (batch,) = EvaluationLoader(packed, 2, 1, CPU)
    assert batch.images.shape == (2, 16, 32, 3)
    assert [tuple(label.shape) for label in batch.labels] == [(40, 64), (30, 50)]
    assert [int(label.unique()) for label in batch.labels] == [3, 4]


def test_a_dropped_loader_is_gone_at_once(places: Packed, recipe: Callable[..., Recipe]) -> None:
    loader = TrainingLoader(places, "source", recipe(), CPU)
    next(loader)
    gone = weakref.ref(loader._pipeline)
    gc.disable()
    try:
        del loader
        assert gone() is None, "its pipeline would hold memory and threads until some later collection"
    finally:
        gc.enable()
