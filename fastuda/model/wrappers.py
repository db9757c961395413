"""What lies around a network's tensors in a checkpoint: dictionaries in dictionaries, prefixes of keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from fastuda.errors import FastudaError
from fastuda.printable import is_plain, on_one_line

# A trained network under the names that trainers give it, and its running average, which is what they would score.
_NETWORKS = (
    "state_dict", "model_state_dict", "model", "net", "network", "student", "student_model", "weights", "params",
    "generator", "module",
)  # fmt: skip
_AVERAGES = ("shadow", "ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "teacher", "teacher_model")
# Words that wrapping modules put before every key; the compiler and data-parallel modules come first.
_PREFIXES = ("_orig_mod", *_NETWORKS, *_AVERAGES)
_MOST = 0.9
_DEEPEST = 64
_MOST_KEYS = 20_000


def unwrap(content: Mapping[object, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a state dict or of a checkpoint around it, and what else lay there, with the reason.

    Where a checkpoint has a network and its running average (or a student and its teacher), the average is
    taken where it has tensors, as the trainers that write both score it.

    Raises FastudaError, without the file, when dictionaries contain themselves, lie too deep or hold too many keys.
    """
    return _Unwrapping(content).level(content)


class _Unwrapping:
    """The walk through one checkpoint, each dictionary once, however often it occurs."""

    def __init__(self, content: Mapping[object, object]) -> None:
        self.with_tensors = _holders(content)
        self.done: dict[int, tuple[dict[str, Tensor], dict[str, str]]] = {}
        # What is looked up by identity has to live as long.
        self.kept: list[Mapping[Any, object]] = []

    def level(self, content: Mapping[Any, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
        if id(content) not in self.done:
            self.done[id(content)] = self._opened(content)
        return self.done[id(content)]

    def _opened(self, level: Mapping[object, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
        content, dropped = _named(level)
        content = self._grouped(content)
        network = next((key for key in _NETWORKS if self._holds_tensors(content.get(key))), None)
        average = next((key for key in _AVERAGES if self._holds_tensors(content.get(key))), None)
        wrappers = [key for key in (network, average) if key is not None]
        if not wrappers:
            tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
            dropped.update({key: "not a tensor" for key in content if key not in tensors})
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
            inner = content[key]
            assert isinstance(inner, Mapping)
            found, left = self.level(inner)
            tensors |= found
            dropped |= left
        return tensors, dropped

    def _holds_tensors(self, content: object) -> bool:
        """Whether there is a tensor somewhere in a dictionary."""
        return id(content) in self.with_tensors

    def _grouped(self, content: dict[str, object]) -> dict[str, object]:
        """The same with wrappers' prefixes taken off: `student.x` and `teacher.x` become two dictionaries.

        Only where nearly every tensor's key begins with such a word, so that a network's own module of that name
        stays; a loss's buffers or a counter may lie beside it.
        """
        while True:
            plain = dict(content)
            tensors = {key for key, value in plain.items() if isinstance(value, Tensor)}
            prefixed = [key for key in plain if key in tensors and "." in key and key.split(".")[0] in _PREFIXES]
            heads = {key.split(".")[0] for key in prefixed}
            if not prefixed or len(prefixed) < _MOST * len(tensors):
                return plain
            for key in tensors.difference(prefixed):
                plain[key] = None  # no weight of the network; named among what was left out
            if len(heads) > 1:
                break
            cut = {key.partition(".")[2]: plain.pop(key) for key in prefixed}
            content = {**plain, **cut}
        groups: dict[str, dict[str, object]] = {}
        for key in prefixed:
            head, _, rest = key.partition(".")
            groups.setdefault(head, {})[rest] = plain.pop(key)
        self.kept += groups.values()
        self.with_tensors.update(map(id, groups.values()))
        return {**plain, **groups}


def _named(level: Mapping[object, object]) -> tuple[dict[str, object], dict[str, str]]:
    """What lies under keys that are names; the others are left out."""
    named: dict[str, object] = {}
    dropped = {}
    for key, value in level.items():
        if isinstance(key, str) and is_plain(key):
            named[key] = value
        elif isinstance(key, str):
            dropped[on_one_line(key, 100)] = "its key is no name: too long, or with characters that cannot be seen"
        else:
            dropped[f"a key of type {type(key).__name__}"] = "not text"
    return named, dropped


def _holders(content: Mapping[object, object]) -> set[int]:
    """Identities of the dictionaries that hold a tensor, at whatever depth; each is looked at once."""
    found: set[int] = set()
    seen: set[int] = set()
    path: list[tuple[Mapping[object, object], Iterator[object]]] = [(content, iter(content.values()))]
    above = {id(content)}
    while path:
        level, values = path[-1]
        for value in values:
            if isinstance(value, Tensor):
                found.add(id(level))
            elif not isinstance(value, Mapping):
                continue
            elif id(value) in above:
                raise FastudaError("it holds a dictionary that contains itself, as no state dict does")
            elif id(value) not in seen:
                path.append((value, iter(value.values())))
                above.add(id(value))
                break
            elif id(value) in found:
                found.add(id(level))
        else:
            path.pop()
            above.remove(id(level))
            seen.add(id(level))
            if id(level) in found and len(level) > _MOST_KEYS:
                raise FastudaError(f"it holds a dictionary of {len(level)} keys, more than any network of fastuda's")
            if path and id(level) in found:
                found.add(id(path[-1][0]))
        if len(path) > _DEEPEST:
            raise FastudaError(
                f"it holds dictionaries in dictionaries, more than {_DEEPEST} deep, as no checkpoint does"
            )
    return found
