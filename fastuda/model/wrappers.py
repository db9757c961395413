"""What lies around a network's tensors in a checkpoint: dictionaries in dictionaries, prefixes of keys."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# A trained network under the names that trainers give it, and its running average, which is what they would score.
_NETWORKS = (
    "state_dict", "model_state_dict", "model", "net", "network", "student", "student_model", "weights", "params",
    "generator", "module",
)  # fmt: skip
_AVERAGES = ("shadow", "ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "teacher", "teacher_model")
# Words that wrapping modules put before every key; the compiler and data-parallel modules come first.
_PREFIXES = ("_orig_mod", *_NETWORKS, *_AVERAGES)
_MOST = 0.9


def unwrap(content: Mapping[str, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a state dict or of a checkpoint around it, and what else lay there, with the reason.

    Where a checkpoint has a network and its running average (or a student and its teacher), the average is
    taken where it has tensors, as the trainers that write both score it.
    """
    dropped: dict[str, str] = {}
    content = _grouped(content)
    network = next((key for key in _NETWORKS if _holds_tensors(content.get(key))), None)
    average = next((key for key in _AVERAGES if _holds_tensors(content.get(key))), None)
    wrappers = [key for key in (network, average) if key is not None]
    if not wrappers:
        tensors = {}
        for key, value in content.items():
            if isinstance(value, Tensor):
                tensors[key] = value
            else:
                dropped[key] = "not a tensor"
        return tensors, dropped
    dropped.update({key: "not the network's weights" for key in content if key not in wrappers})
    if network:
        for key in _AVERAGES:
            if key in content and key != average:
                dropped[key] = f"averaged weights in no form that is known: those of {network} were taken"
    if network and average:
        dropped[network] = f"the file's averaged weights ({average}) were taken where it has them"
    tensors = {}
    for key in wrappers:
        level = content[key]
        assert isinstance(level, Mapping)
        inner, left = unwrap(level)
        tensors |= inner
        dropped |= left
    return tensors, dropped


def _holds_tensors(content: object) -> bool:
    """Whether there is a tensor somewhere in a dictionary."""
    return isinstance(content, Mapping) and any(isinstance(v, Tensor) or _holds_tensors(v) for v in content.values())


def _grouped(content: Mapping[str, object]) -> dict[str, object]:
    """The same with wrappers' prefixes taken off: `student.x` and `teacher.x` become two dictionaries.

    Only where nearly every tensor's key begins with such a word, so that a network's own module of that name stays; a
    loss's buffers or a counter may lie beside it.
    """
    plain = {str(key): value for key, value in content.items()}
    tensors = [key for key, value in plain.items() if isinstance(value, Tensor) and key.split(".")[0] in _PREFIXES]
    tensors = [key for key in tensors if "." in key]
    heads = {key.split(".")[0] for key in tensors}
    if not tensors or len(tensors) < _MOST * sum(isinstance(value, Tensor) for value in plain.values()):
        return plain
    for key in [key for key, value in plain.items() if isinstance(value, Tensor) and key not in tensors]:
        plain[key] = None  # no weight of the network; named among what was left out
    if len(heads) == 1:
        cut = {re.sub(r"^[^.]+\.", "", key): plain.pop(key) for key in tensors}
        return _grouped({**plain, **cut})
    groups: dict[str, dict[str, object]] = {}
    for key in tensors:
        head, _, rest = key.partition(".")
        groups.setdefault(head, {})[rest] = plain.pop(key)
    return {**plain, **groups}
