"""Test-time augmentation against the same average written out, and the plain pass left as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from steps import AS_IT_IS, begin, tiny
from torch import Tensor

from fastuda.model.inference import evaluation_logits
from fastuda.model.segmenter import Outputs
from fastuda.recipe import Evaluation

SIZE = (32, 48)


@pytest.fixture(scope="module")
def images() -> Tensor:
    coarse = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(coarse, SIZE, mode="bicubic", align_corners=True).clamp(0, 1)
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def answer(images: Tensor, **settings: object) -> Tensor:
    model = begin(tiny("gta2cs")).student.eval()
    return evaluation_logits(model, images, Evaluation.model_validate(settings), AS_IT_IS).logits


def full(logits: Tensor) -> Tensor:
    return F.interpolate(logits, SIZE, mode="bilinear", align_corners=True).softmax(1)


def test_without_augmentation_the_networks_own_logits_come_back(images: Tensor) -> None:
    model = begin(tiny("gta2cs")).student.eval()
    with torch.no_grad():
        assert torch.equal(answer(images), AS_IT_IS.raw(model, images).logits)


def test_flip_averages_the_answer_with_the_mirrored_images(images: Tensor) -> None:
    expected = (full(answer(images)) + full(answer(images.flip(2))).flip(3)) / 2
    torch.testing.assert_close(answer(images, flip=True).exp(), expected)
    assert not torch.allclose(expected, full(answer(images)), atol=1e-5)


def test_a_mirrored_image_gets_the_mirrored_answer(images: Tensor) -> None:
    torch.testing.assert_close(answer(images.flip(2), flip=True), answer(images, flip=True).flip(3))


class Seen(torch.nn.Module):
    """Notes its input, and answers with its average colour, coarsely."""

    align_corners = True

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Tensor] = []

    def forward(self, images: Tensor) -> Outputs:
        self.images.append(images)
        return Outputs(F.adaptive_avg_pool2d(images / 40, (3, 4)), None)


def test_scales_average_the_answers_to_images_resized_as_pil_does(images: Tensor) -> None:
    model, scales = Seen(), (0.75, 1.0, 1.5)
    settings = Evaluation.model_validate({"scales": scales})
    found = evaluation_logits(model, images, settings, AS_IT_IS).logits  # type: ignore[arg-type]
    for seen, scale in zip(model.images, scales, strict=True):
        size = (round(SIZE[1] * scale), round(SIZE[0] * scale))
        each = [Image.fromarray(one.numpy()).resize(size, Image.Resampling.BICUBIC) for one in images]
        expected = torch.from_numpy(np.stack([np.asarray(one) for one in each])).permute(0, 3, 1, 2).float()
        assert (seen - expected).abs().max() <= 1  # PIL rounds after each of its two passes, torch once
    answers = [full(F.adaptive_avg_pool2d(seen / 40, (3, 4))) for seen in model.images]
    torch.testing.assert_close(found.exp(), torch.stack(answers).mean(0))


def test_flip_and_scales_together_are_the_average_of_all(images: Tensor) -> None:
    each = [answer(images, scales=(scale,), flip=True).exp() for scale in (0.5, 1.25)]
    torch.testing.assert_close(answer(images, scales=(0.5, 1.25), flip=True).exp(), (each[0] + each[1]) / 2)


@pytest.mark.parametrize(("window", "step"), [((24, 20), (12, 9)), ((24, 32), None), ((48, 16), (48, 16))])
def test_windows_cover_the_image_and_their_logits_are_averaged(
    window: tuple[int, int], step: tuple[int, int] | None, images: Tensor
) -> None:
    settings: dict[str, object] = {"window": window, "window_step": step}
    model = begin(tiny("gta2cs")).student.eval()
    across, down = step or (window[0] * 2 // 3, window[1] * 2 // 3)
    total, times = torch.zeros(2, 19, *SIZE), torch.zeros(SIZE)
    # mmseg's grid: starts a step apart, the last one moved back to end with the image.
    for row in range(max(SIZE[0] - window[1] + down - 1, 0) // down + 1):
        for column in range(max(SIZE[1] - window[0] + across - 1, 0) // across + 1):
            bottom, right = min(row * down + window[1], SIZE[0]), min(column * across + window[0], SIZE[1])
            top, left = bottom - window[1], right - window[0]
            with torch.no_grad():
                logits = AS_IT_IS.raw(model, images[:, top:bottom, left:right]).logits
            wide = F.interpolate(logits, (window[1], window[0]), mode="bilinear", align_corners=True)
            total[:, :, top:bottom, left:right] += wide
            times[top:bottom, left:right] += 1
    assert times.min() >= 1
    found = answer(images, **settings)
    torch.testing.assert_close(found, total / times, rtol=1e-5, atol=1e-6)
    flipped = (full(found) + full(answer(images.flip(2), **settings)).flip(3)) / 2
    torch.testing.assert_close(answer(images, flip=True, **settings).exp(), flipped)


def test_a_window_as_large_as_the_image_is_one_pass(images: Tensor) -> None:
    assert torch.equal(answer(images, window=(48, 32)), answer(images))
    assert torch.equal(answer(images, window=(100, 32)), answer(images))
    assert answer(images, window=(47, 32)).shape[2:] == SIZE


def test_windows_that_leave_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="leaves gaps between windows"):
        Evaluation(window=(32, 32), window_step=(33, 32))
    with pytest.raises(ValueError, match="window_step goes with `window`"):
        Evaluation(window_step=(33, 32))
