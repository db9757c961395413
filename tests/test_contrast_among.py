"""The contrastive loss of some rows among more: where the rows are the anchors it is `pixel_contrast`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastuda_kernels.pixel_contrast import pixel_contrast
from fastuda_kernels.pixel_contrast.gathered import BLOCK_ROWS, contrast_among


def rows(num_images: int, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_images, count, 5, generator=generator, dtype=torch.float64).softmax(-1)


@pytest.mark.parametrize("count", [1, 7, BLOCK_ROWS, BLOCK_ROWS + 3])
@pytest.mark.parametrize("masked", [False, True])
def test_of_its_own_rows_it_is_pixel_contrast(count: int, masked: bool) -> None:
    views = [rows(2, count, seed).requires_grad_() for seed in (0, 1)]
    same = [one.detach().clone().requires_grad_() for one in views]
    valid = torch.rand(2, count, generator=torch.Generator().manual_seed(2)) < 0.6 if masked else None
    expected = pixel_contrast(*views, 12.0, valid=valid)
    both = torch.cat(same, 1)
    found = contrast_among(both, both, 0, 12.0, None if valid is None else torch.cat([valid, valid], 1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    expected.backward()  # type: ignore[no-untyped-call]
    found.backward()  # type: ignore[no-untyped-call]
    for one, other in zip(views, same, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-12)


def test_gradients_of_anchors_and_rows_are_those_of_the_numbers() -> None:
    every, valid = rows(2, 12).requires_grad_(), torch.ones(2, 12, dtype=torch.bool)
    valid[0, [1, 5, 9]] = False
    anchors = every.detach()[:, 4:8].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, r: contrast_among(a, r, 4, 3.0, valid), (anchors, every))


def test_anchors_without_a_valid_row_cost_nothing() -> None:
    every = rows(1, 8).requires_grad_()
    loss = contrast_among(every[:, :4], every, 0, 20.0, torch.zeros(1, 8, dtype=torch.bool))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert every.grad is not None
    assert not every.grad.any()


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_memory_is_of_a_block_of_anchors_not_of_all_pairs() -> None:
    every = rows(1, 8 * BLOCK_ROWS).requires_grad_()
    largest = _Largest()
    with largest:
        contrast_among(every[:, : 4 * BLOCK_ROWS], every, 0, 20.0).backward()  # type: ignore[no-untyped-call]
    assert largest.numel == BLOCK_ROWS * 8 * BLOCK_ROWS


@pytest.mark.parametrize(
    ("anchors", "first", "scale", "message"),
    [
        (3, 0, 1.0, "3 anchors from 0 on are no two views among 8 rows"),
        (4, 5, 1.0, "4 anchors from 5 on are no two views among 8 rows"),
        (4, 0, 0.0, "scale must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused(anchors: int, first: int, scale: float, message: str) -> None:
    every = rows(1, 8)
    with pytest.raises(ValueError, match=message):
        contrast_among(every[:, :anchors], every, first, scale)


def test_rows_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="rows"):
        contrast_among(rows(1, 4), rows(1, 8)[..., :3], 0, 1.0)
