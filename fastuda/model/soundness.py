"""Whether tensors out of a stranger's file are what a network needs: kind, shape and values, before any use of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fastuda.errors import FastudaError

MOST_CLASSES = 255
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *_FLOATS)
_COUNT = ".num_batches_tracked"
_NAMED = 10


def check_kinds(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor] | None = None) -> None:
    """Refuse tensors that are no plain numbers in memory: sparse, quantised, nested, without storage, overlapping.

    They must be floating-point numbers but where a network's own state, `wanted`, has whole numbers or truth values
    under that key. Raises FastudaError, without the file, that names the keys. Values are not looked at.
    """
    problems = ((key, _misfit(key, tensor, (wanted or {}).get(key))) for key, tensor in tensors.items())
    found = [f"{key} is {problem}" for key, problem in problems if problem]
    if found:
        raise FastudaError(f"{_counted(len(found))} no plain floating-point numbers: {listed(found)}")


def _misfit(key: str, tensor: Tensor, wanted: Tensor | None) -> str | None:
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"a {type(tensor).__name__}, not a tensor"
    if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_quantized:
        return f"{'nested' if tensor.is_nested else 'quantised' if tensor.is_quantized else 'sparse'}, not dense"
    if tensor.dtype not in (kinds := _kinds(key, wanted)):
        return f"{_named(tensor.dtype)}, not {_named(kinds[0]) if len(kinds) == 1 else 'float32 (or 16 or 64)'}"
    if tensor.device.type != "cpu":
        return f"without values (on the device {tensor.device.type})"
    if tensor.numel() == 0:
        return f"{size(tensor)}, which is empty"
    if _overlaps(tensor):
        return f"{size(tensor)} in a memory of {tensor.untyped_storage().nbytes()} bytes; its values overlap"
    return None


def _kinds(key: str, wanted: Tensor | None) -> tuple[torch.dtype, ...]:
    """The types that the tensor under a key may have."""
    if key.endswith(_COUNT):
        return _COUNTS
    return _FLOATS if wanted is None or wanted.is_floating_point() else (wanted.dtype,)


def _named(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def _overlaps(tensor: Tensor) -> bool:
    """Whether some values share their memory, as they do in an expanded tensor of any size."""
    reach = 0
    for stride, length in sorted((stride, n) for stride, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1):
        if stride <= reach:
            return True
        reach += stride * (length - 1)
    end = (tensor.storage_offset() + reach + 1) * tensor.element_size()
    return end > tensor.untyped_storage().nbytes()


def misfits(tensors: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> list[str]:
    """What keeps the tensors from being those of a network, a key each; counts of batches may be missing."""
    problems = [f"{key} is missing" for key in wanted if key not in tensors and not key.endswith(_COUNT)]
    for key, value in tensors.items():
        if key not in wanted:
            problems.append(f"{key} has no place in the model")
        elif value.shape != wanted[key]:
            problems.append(f"{key} is {size(value)}, not {size(wanted[key])}")
    return problems


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Refuse values that a network cannot compute with. Raises FastudaError, without the file, that names the keys."""
    floats = {key: value for key, value in tensors.items() if value.is_floating_point()}
    _refuse(floats, lambda _, value: not value.isfinite().all(), "NaN or infinity")
    most = torch.finfo(torch.float32).max
    wide = {key: value for key, value in floats.items() if value.dtype == torch.float64}
    _refuse(wide, lambda _, value: value.abs().max() > most, "values too large for float32")
    _refuse(floats, lambda key, value: key.endswith(".running_var") and bool(value.min() < 0), "negative variances")


def _refuse(tensors: Mapping[str, Tensor], broken: Callable[[str, Tensor], object], what: str) -> None:
    found = [key for key, value in tensors.items() if broken(key, value)]
    if found:
        raise FastudaError(f"{len(found)} tensors hold {what} ({listed(found, 3)}); it is damaged")


def listed(problems: Sequence[str], most: int = _NAMED) -> str:
    """The first of them, on one line, and how many more there are."""
    more = f" and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more


def size(shape: Tensor | Iterable[int]) -> str:
    """A shape as `3×7`; `a number` for none."""
    dimensions = list(shape.shape if isinstance(shape, Tensor) else shape)
    more = "×…" if len(dimensions) > 8 else ""
    return "×".join(map(str, dimensions[:8])) + more or "a number"


def _counted(number: int) -> str:
    return "1 tensor holds" if number == 1 else f"{number} tensors hold"
