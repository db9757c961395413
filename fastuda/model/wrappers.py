"""What lies around a network's tensors in a checkpoint: dictionaries in dictionaries, prefixes of keys."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# A trained network under the names that trainers give it, and its running average, which is what they would score.
_NETWORKS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "student",
    "student_model",
    "weights",
    "params",
)
_AVERAGES = ("shadow", "ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "teacher", "teacher_model")
# Words that wrapping modules put before every key; the compiler and data-parallel modules come first.
_PREFIXES = ("module", "_orig_mod", *_NETWORKS, *_AVERAGES)


def unwrap(content: Mapping[str, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a state dict or of a checkpoint around it, and what else lay there, with the reason.

    Where a checkpoint has a network and its running average (or a student and its teacher), the average is
    taken where it has tensors, as the trainers that write both score it.
    """
    dropped: dict[str, str] = {}
    content = _grouped(content)
    network = next((key for key in _NETWORKS if isinstance(content.get(key), Mapping)), None)
    average = next((key for key in _AVERAGES if isinstance(content.get(key), Mapping)), None)
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


def _grouped(content: Mapping[str, object]) -> dict[str, object]:
    """The same with wrappers' prefixes taken off: `student.x` and `teacher.x` become two dictionaries.

    Only where every tensor's key begins with such a word, so that a network's own module of that name stays.
    """
    plain = {str(key): value for key, value in content.items()}
    tensors = [key for key, value in plain.items() if isinstance(value, Tensor)]
    heads = {key.split(".")[0] for key in tensors}
    if not tensors or not all("." in key for key in tensors) or not heads <= {*_PREFIXES}:
        return plain
    if len(heads) == 1:
        cut = {re.sub(r"^[^.]+\.", "", key): plain.pop(key) for key in tensors}
        return _grouped({**plain, **cut})
    groups: dict[str, dict[str, object]] = {}
    for key in tensors:
        head, _, rest = key.partition(".")
        groups.setdefault(head, {})[rest] = plain.pop(key)
    return {**plain, **groups}
