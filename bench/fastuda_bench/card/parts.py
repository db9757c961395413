"""The parts of a card in the order of their worth: each a command, its time limit, and the file that it leaves."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastuda.errors import UsageError
from fastuda_bench import cudnn_graphs
from fastuda_bench.agreement import BASELINE
from fastuda_bench.card.order import Order
from fastuda_bench.card.rungs import counting_rungs, rung_file
from fastuda_bench.ladder import rungs_on
from fastuda_bench.step_table import CAREFUL

_BENCH = (sys.executable, "-m", "fastuda_cli.main", "bench")
_LIMITS = {
    "probe": 90,
    "step": 120,
    "tests": 180,
    "kernels": 90,
    "loader": 60,
    "train": 120,
    "evaluate": 90,
    "cudnn": 60,
}
"""Seconds, in a card of the default length; `Order.patience` lengthens them."""
_LAST_RUNG_LIMIT = 240
"""It compiles first, and is profiled."""
_NO_DALI = "NVIDIA DALI cannot be imported: pip install nvidia-dali-cuda130"
_MAX_TEST_PROCESSES = 6


def _always() -> str | None:
    return None


@dataclass(frozen=True)
class Part:
    """One measurement of a card."""

    name: str
    limit: float
    """Seconds."""
    result: Path
    """The file that it leaves, replaced when it runs again."""
    command: Callable[[], list[str]]
    """Asked for when its turn comes: it may depend on what earlier parts left."""
    why_not: Callable[[], str | None] = _always
    """Why it cannot be had on this machine, None if it can."""
    cwd: Path = field(default_factory=Path.cwd)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """`step` for every rung, the name for all others."""
        return self.name.partition("-")[0]


def parts_of(order: Order) -> list[Part]:
    """All parts of a card. Raises UsageError when the order skips what there is not."""
    folder, on_gpu = order.folder, order.device.type == "cuda"
    device = ["--device", order.device.type]
    settings = [word for setting in order.settings for word in ("--set", setting)]
    roots = [
        word for name in ("source", "target") if (path := getattr(order, name)) for word in (f"--{name}", str(path))
    ]
    repeats = ["--repeats", str(order.repeats)]
    iterations = ["--iterations", str(order.iterations or (20 if on_gpu else 3))]
    timed = [*device, *settings, *repeats, *iterations]

    def bench(name: str, *words: str) -> list[str]:
        return [*_BENCH, name, *words, "--json", str(folder / f"{name}.json")]

    def rates() -> list[str]:
        probe = folder / "probe.json"
        return ["--limits", str(probe)] if probe.exists() else []

    def need() -> list[str]:
        return ["--step", str(folder / "step.json")] if counting_rungs(folder) else []

    def part(name: str, command: Callable[[], list[str]], why_not: Callable[[], str | None] = _always) -> Part:
        return Part(name, _LIMITS[name], folder / f"{name}.json", command, why_not)

    images = ["--images", str(order.images)] if order.images else []
    sizes = [] if on_gpu else ["--small"]
    found = [
        part("probe", lambda: bench("probe", order.recipe, *device, *settings)),
        *_rungs(order, timed, rates),
        _tests(order),
        part("kernels", lambda: bench("kernels", *device, *repeats, "--no-compile", *sizes, *rates())),
        part("loader", lambda: bench("loader", order.recipe, *timed, *roots, *need()), _no_dali),
        part("train", lambda: bench("train", order.recipe, *timed, *roots), _no_dali),
        part("evaluate", lambda: bench("evaluate", order.recipe, *device, *settings, *images), _no_dali),
        part("cudnn", lambda: bench("cudnn", *device, *repeats), lambda: cudnn_graphs.missing(order.device)),
    ]
    known = list(dict.fromkeys([*(one.group for one in found), *(one.name for one in found)]))
    for name in sorted(order.skip):
        if name not in known:
            raise UsageError(f"--skip {name}: the parts are {', '.join(known)}")
    return [replace(one, limit=one.limit * order.patience) for one in found]


def checkout() -> Path | None:
    """The repository that this code is run from, None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "tests" / "conftest.py").exists() and (root / "pyproject.toml").exists() else None


def _rungs(order: Order, timed: list[str], rates: Callable[[], list[str]]) -> list[Part]:
    """A part a rung: the last one, whose speed is the product's, then what it is compared with, then the others."""
    names = [rung.name for rung in rungs_on(order.device)]
    last = names[-1]
    first = [last, *(name for name in (CAREFUL, BASELINE) if name in names and name != last)]

    def rung(name: str) -> Part:
        file = rung_file(order.folder, name)
        profile = ["--profile", str(order.folder / "profile")] if name == last else []

        def command() -> list[str]:
            words = ["step", order.recipe, "--rung", name, *timed, *profile, *rates(), "--json", str(file)]
            return [*_BENCH, *words]

        return Part(f"step-{name}", _LAST_RUNG_LIMIT if name == last else _LIMITS["step"], file, command)

    return [rung(name) for name in (*first, *(name for name in names if name not in first))]


def _tests(order: Order) -> Part:
    root = checkout()

    def has(module: str) -> bool:
        return importlib.util.find_spec(module) is not None

    def why_not() -> str | None:
        if root is None:
            return "an installed package has no tests; run `fastuda bench card` in a checkout"
        return None if has("pytest") else "pytest is not installed: pip install pytest"

    environment = {}
    words = [] if root is None else ["-c", str(root / "pyproject.toml")]
    words += ["-m", "gpu", *shlex.split(order.tests or "tests"), f"--junitxml={order.folder / 'tests.xml'}"]
    words += ["-v", "-rfE", "-W", "default", "-p", "no:cacheprovider", "-p", "fastuda_bench.card.gentle_end"]
    words += ["-o", "addopts=--strict-markers --import-mode=importlib"]
    if has("pytest_timeout"):
        words.append("--timeout=100")
    if has("xdist") and order.device.type == "cuda":
        words += ["-n", str(_MAX_TEST_PROCESSES)]
        environment["TORCHINDUCTOR_COMPILE_THREADS"] = "2"  # else every process would start one a core
    return Part(
        "tests",
        _LIMITS["tests"],
        order.folder / "tests.xml",
        lambda: [sys.executable, "-m", "pytest", *words],
        why_not,
        root or Path.cwd(),
        environment,
    )


def _no_dali() -> str | None:
    try:
        return None if importlib.util.find_spec("nvidia.dali") is not None else _NO_DALI
    except ImportError:
        return _NO_DALI
