"""The kernels of operations that run outside compiled code, counted as they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from fastuda_bench.tally import Tally

_NOTHING = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "lift_fresh")
_PRODUCTS = ("convolution", "mm", "bmm", "addmm", "baddbmm")
_TENSORS_A_LAUNCH = (110, 64, 48, 36, 30)
"""What torch's multi_tensor_apply takes at once, by how many lists of tensors an operation works on."""
_BLOCKS_A_LAUNCH, _ELEMENTS_A_BLOCK = 320, 65536


class EagerTally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts a launch an operation and every argument and result once; views and empty tensors are none.

    A convolution's backward is a launch for each gradient; an operation over lists of tensors has as many
    as torch's `multi_tensor_apply` makes of them; fastuda's own operators are given to `kernels_of`.
    """

    supports_higher_order_operators = True
    """Launches of Triton kernels in traced graphs; they come while counting is paused."""

    def __init__(self, kernels_of: Callable[[Any, tuple[Any, ...], dict[str, Any]], Tally]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = Tally()
        self.names: Counter[str] = Counter()
        """Launches by operation, for a reader."""
        self._kernels_of = kernels_of
        self._paused = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While entered, nothing is counted."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        if func.namespace == "fastuda":
            with self.paused():
                found = self._kernels_of(func, args, kwargs)
                result = func(*args, **kwargs)
        else:
            result = func(*args, **kwargs)
            found = _counted(func, args, kwargs, result)
        self.total.add(found)
        self.names[str(func)] += found.launches
        return result


def _counted(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Tally:
    name = func.__name__.split(".")[0]
    tensors = [one for one in tree_iter((args, kwargs, result)) if isinstance(one, Tensor)]
    made = any(isinstance(one, Tensor) for one in tree_iter(result))
    if func.is_view or name in _NOTHING or not made:
        return Tally()
    size = sum(one.numel() * one.element_size() for one in tensors)
    if name == "convolution_backward":
        return Tally(products=sum(args[-1]), bytes=size)
    if name in _PRODUCTS:
        return Tally(products=1, bytes=size)
    return Tally(others=_launches_of_lists(args) if name.startswith(("_foreach", "_fused")) else 1, bytes=size)


def _launches_of_lists(args: tuple[Any, ...]) -> int:
    """Of an operation over lists of tensors, cut as `multi_tensor_apply` cuts them: by tensors and by blocks."""
    lists = [one for one in args if isinstance(one, list | tuple) and one and isinstance(one[0], Tensor)]
    most, launches, tensors, blocks = _TENSORS_A_LAUNCH[len(lists) - 1], 0, 0, 0
    for tensor in lists[0]:
        tensors += 1
        for _ in range(-(-tensor.numel() // _ELEMENTS_A_BLOCK)):
            blocks += 1
            if blocks == _BLOCKS_A_LAUNCH:
                # The tensor that is cut goes on in the next launch.
                launches, blocks, tensors = launches + 1, 0, 1
        if tensors == most:
            launches, blocks, tensors = launches + 1, 0, 0
    return launches + (blocks > 0)
