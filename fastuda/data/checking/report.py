"""What a check of a data set found: faults, suspicions, classes and sizes, alone and beside another data set's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from fastuda.data.checking.suspicion import Suspicion
from fastuda.data.reading.faults import FaultKind
from fastuda.data.reading.listing import LeftOut
from fastuda.data.reading.samples import Split
from fastuda.printable import on_one_line


@dataclass(frozen=True)
class Problem:
    """One fault: the sample it belongs to (None for a file without partner), its kind, file and explanation."""

    sample: str | None
    kind: FaultKind
    file: str
    detail: str
    files: tuple[str, ...] = ()
    """Every file of the sample: a fault may be mended in either."""


@dataclass(frozen=True)
class Suspect:
    """A pair to look at, and why."""

    name: str
    image: str
    label: str
    why: list[str]

    def paths(self) -> tuple[Path, Path]:
        """The image's and the label's."""
        return Path(self.image), Path(self.label)


@dataclass(frozen=True)
class FaultGroup:
    """All faults of one kind: how many, and the first few."""

    kind: FaultKind
    count: int
    examples: list[Problem]


@dataclass
class CheckReport:
    """What `check` found in one split of one data set; pixel counts are of sound labels, at their own size."""

    layout: str
    root: str
    split: Split
    labelled: bool
    num_samples: int
    problems: list[Problem] = field(default_factory=list)
    pixels: dict[str, int] = field(default_factory=dict)
    """Class name → pixels, every class of the recipe, in train id order; empty when not `labelled`."""
    ignored_pixels: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    """Image size such as `1914x1052` → number of images."""
    suspicions: list[Suspicion] = field(default_factory=list)
    """What is no fault and yet looks like a mistake."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """How many files and samples are not used, and why; the faulty ones are `skipped`."""
    suspects: list[Suspect] = field(default_factory=list)
    """The pairs that look most wrong, the worst first, five at most."""

    EXAMPLES: ClassVar[int] = 10
    """How many files stand for a kind of fault."""

    def faults(self) -> list[FaultGroup]:
        """The problems by kind, the most frequent first."""
        by_kind: dict[FaultKind, list[Problem]] = {}
        for problem in self.problems:
            by_kind.setdefault(problem.kind, []).append(problem)
        groups = [FaultGroup(kind, len(found), found[: self.EXAMPLES]) for kind, found in by_kind.items()]
        return sorted(groups, key=lambda group: -group.count)

    def short(self, file: str) -> str:
        """A file's path below the data set's folder, as it can be shown."""
        return on_one_line(file.removeprefix(self.root.rstrip("/") + "/"))

    def shares(self) -> dict[str, float]:
        """Class name → share of the pixels that count, 0 to 1."""
        total = max(sum(self.pixels.values()), 1)
        return {name: count / total for name, count in self.pixels.items()}

    @property
    def skip(self) -> list[str]:
        """Names of the samples that `prepare` has to leave out, sorted."""
        return sorted({problem.sample for problem in self.problems if problem.sample is not None})

    @property
    def num_sound(self) -> int:
        """Samples without a fault."""
        faulty = {problem.sample for problem in self.problems if problem.kind != "two files"}
        return self.num_samples - len(faulty - {None})

    def to_json(self) -> dict[str, Any]:
        """Everything here as JSON-ready values."""
        faults = {
            group.kind: {"count": group.count, "examples": [p.file for p in group.examples]} for group in self.faults()
        }
        return asdict(self) | {"faults": faults, "skip": self.skip, "num_sound": self.num_sound}


@dataclass(frozen=True)
class Comparison:
    """Two data sets' classes side by side; shares are of the pixels that count."""

    only_in_source: list[str]
    only_in_target: list[str]
    missing_in_both: list[str]
    share_ratios: dict[str, float]
    """Class name → target share ÷ source share, for classes both hold."""
    note: str | None
    """Why there is nothing to compare, if so."""
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Class name → source share and target share, 0 to 1."""

    def place(self, name: str) -> str:
        """Where a class that the two do not share is."""
        if name in self.only_in_source:
            return "only in the first"
        return "only in the other" if name in self.only_in_target else "in neither"

    def to_json(self) -> dict[str, Any]:
        """Everything here as JSON-ready values."""
        return asdict(self)


def compare(source: CheckReport, target: CheckReport) -> Comparison:
    """Classes that one domain has and the other lacks, and how their shares differ."""
    unlabelled = [name for name, report in (("source", source), ("target", target)) if not report.labelled]
    if unlabelled:
        note = f"the {' and '.join(unlabelled)} was checked without labels, so class shares cannot be compared"
        return Comparison([], [], [], {}, note)
    shares = [report.shares() for report in (source, target)]
    names = [name for name in source.pixels if name in target.pixels]
    present = [{name for name in names if share[name] > 0} for share in shares]
    return Comparison(
        [name for name in names if name in present[0] - present[1]],
        [name for name in names if name in present[1] - present[0]],
        [name for name in names if name not in present[0] | present[1]],
        {name: shares[1][name] / shares[0][name] for name in names if name in present[0] & present[1]},
        None,
        {name: (shares[0][name], shares[1][name]) for name in names},
    )
