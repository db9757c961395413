"""Look at every file of a data set before training: what is missing, damaged or mislabelled, and what it holds."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fastuda.classes import CITYSCAPES_TRAIN_IDS, IGNORE_INDEX, ClassSet
from fastuda.data.cache import make_folder, write_atomic
from fastuda.data.faults import FaultKind, SampleError
from fastuda.data.images import read_colour, read_file, turn
from fastuda.data.label_look import LabelLook, look_at
from fastuda.data.labels import id_table, read_label, unknown_fault
from fastuda.data.layouts import TRAIN_IDS_SUFFIX, Split, data_root, find_samples
from fastuda.data.listing import LeftOut, Sample
from fastuda.data.parallel import run_parallel
from fastuda.data.suspicion import Suspicion, class_suspicions, foreground_suspicion, label_suspicions
from fastuda.errors import FastudaError
from fastuda.recipe import Domain

_NUM_SUSPECTS = 5


@dataclass(frozen=True)
class Problem:
    """One fault: the sample it belongs to (None for a file without partner), its kind, file and explanation."""

    sample: str | None
    kind: FaultKind
    file: str
    detail: str


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
        """A file's path below the data set's folder."""
        return file.removeprefix(self.root.rstrip("/") + "/")

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


@dataclass(frozen=True)
class _Finding:
    """What one sample's files gave; `look` is of a label that could be read."""

    problems: list[Problem]
    size: str | None
    look: LabelLook | None
    turned: int = 1
    """The image's EXIF orientation."""

    @property
    def counts(self) -> dict[int, int]:
        """Pixels by label value; none for labels that could not be read."""
        return {} if self.look is None else self.look.counts


def check(
    domain: Domain,
    classes: ClassSet,
    split: Split,
    *,
    labelled: bool,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Decode every image, and with `labelled` every label, and report each fault with its file.

    `progress(done, total)` is called after each sample. FastudaError when the layout cannot be
    listed at all; faults of single files never raise.
    """
    listing = find_samples(domain, split, labelled=labelled)
    report = CheckReport(domain.layout, str(data_root(domain)), split, labelled, len(listing.samples))
    report.problems += [_lonely("no label", path) for path in listing.without_label]
    report.problems += [_lonely("no image", path) for path in listing.without_image]
    report.problems += [_double(name, path, paths) for name, paths in listing.twice.items() for path in paths]
    findings: dict[str, _Finding] = {}
    with closing(run_parallel(lambda item: _look(item, domain, classes), listing.samples, workers)) as looks:
        for sample, finding in looks:
            findings[sample.name] = finding
            if progress:
                progress(len(findings), len(listing.samples))
    report.sizes = dict(Counter(finding.size for finding in findings.values() if finding.size).most_common())
    for sample in listing.samples:
        report.problems += findings[sample.name].problems
    converted = _converted(listing.samples, findings, domain)
    report.problems += converted
    if labelled:
        _count_classes(report, listing.samples, findings, domain, classes)
        _suspect(report, listing.samples, findings, domain, classes)
    report.left_out = listing.left_out(len(set(report.skip) & findings.keys()))
    return report


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


def write_skip_list(cache: Path, domain: Domain, report: CheckReport) -> Path:
    """Store the names that `prepare` leaves out, in the cache folder; an earlier list is replaced."""
    path = _skip_path(cache, domain, report.split, report.labelled)
    make_folder(path.parent)
    faults: dict[str, list[dict[str, Any]]] = {name: [] for name in report.skip}
    for problem in report.problems:
        if problem.sample is not None:
            fault = {"file": problem.file, "state": _file_state(problem.file), "detail": problem.detail}
            faults[problem.sample].append(fault)
    content = {"root": report.root, "layout": report.layout, "split": report.split, "skip": faults}
    write_atomic(path, json.dumps(content, indent=1).encode())
    return path


def read_skip_list(cache: Path, domain: Domain, split: Split, *, labelled: bool) -> frozenset[str]:
    """Names to leave out by the last `write_skip_list`; none when the data set was never checked.

    A list holds for the ids it was made with and for labels or none; a sample whose faulty file has
    changed since is no longer left out.
    """
    path = _skip_path(cache, domain, split, labelled)
    try:
        skip = json.loads(path.read_text())["skip"]
        return frozenset(
            name for name, faults in skip.items() if all(_file_state(f["file"]) == f["state"] for f in faults)
        )
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FastudaError(f"{path}: not a skip list; delete it and run `fastuda data check` again") from error


def _file_state(file: str) -> list[int]:
    """Bytes and modification time, [0, 0] for a file that cannot be looked at."""
    try:
        status = Path(file).stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _skip_path(cache: Path, domain: Domain, split: Split, labelled: bool) -> Path:
    name = domain.split if split == "train" else domain.val_split
    globs = (domain.images, domain.labels) if split == "train" else (domain.val_images, domain.val_labels)
    ids = sorted((domain.ids or {}).items()) if labelled else None
    key = json.dumps([domain.layout, str(data_root(domain)), split, name, globs, labelled, ids])
    return cache / "skip" / f"{domain.layout}-{split}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"


def _lonely(kind: FaultKind, path: Path) -> Problem:
    return Problem(None, kind, str(path), f"{kind.removeprefix('no ')} missing, so the file is not used")


def _double(name: str, path: Path, paths: list[Path]) -> Problem:
    others = ", ".join(other.name for other in paths if other != path)
    detail = f"stands for the same sample as {others}, and only one can be meant; move the other away"
    return Problem(name, "two files", str(path), detail)


def _look(sample: Sample, domain: Domain, classes: ClassSet) -> _Finding:
    problems: list[Problem] = []
    image_size: tuple[int, int] | None = None
    look: LabelLook | None = None
    turned = 1

    def note(error: SampleError) -> None:
        problems.append(Problem(sample.name, error.kind, str(error.path), error.detail))

    try:
        data = read_file(sample.image)
        image_size = read_colour(data, sample.image).size
        turned = turn(data)
    except SampleError as error:
        note(error)
    if sample.label is not None:
        try:
            raw = read_label(sample.label, domain.layout)
            height, width = raw.shape
            if image_size is not None and image_size != (width, height):
                note(size_fault(sample.label, image_size, (width, height), turned))
            look = look_at(raw)
            ids = id_table(domain, classes, sample.label)
            unknown = {value: count for value, count in look.counts.items() if not ids.known[value]}
            if unknown:
                note(unknown_fault(unknown, ids, sample.label))
        except SampleError as error:
            note(error)
    return _Finding(problems, "{}x{}".format(*image_size) if image_size else None, look, turned)


def size_fault(
    label: Path, image_size: tuple[int, int], label_size: tuple[int, int], orientation: int = 1
) -> SampleError:
    """The fault of a pair whose sizes (width, height) differ; `orientation` is the image's EXIF tag."""
    sizes = ["{}x{}".format(*size) for size in (label_size, image_size)]
    if orientation >= 5 and label_size == image_size[::-1]:
        return SampleError(
            "turned", label,
            f"the label is {sizes[0]}, and its photograph {sizes[1]} once it is turned upright as its EXIF tag says "
            f"(orientation {orientation}): turn the label too, or take the tag off if the stored pixels are upright",
        )  # fmt: skip
    return SampleError("size", label, f"the label is {sizes[0]} and its image {sizes[1]}")


def _converted(samples: list[Sample], findings: dict[str, _Finding], domain: Domain) -> list[Problem]:
    """Labels that hold train ids where Cityscapes' labelIds are expected.

    One file cannot tell: a tunnel too may hold no id above 18. So 255 must be there, which the data
    sets' own labelIds never hold; or no file of the whole set goes above 18 and there is more of 0
    (road, as a train id) than of 7 (road, as a labelId).
    """
    if domain.layout not in ("gta5", "cityscapes"):
        return []
    train_ids = {*CITYSCAPES_TRAIN_IDS, IGNORE_INDEX}
    expecting_ids = [s for s in samples if s.label and not s.label.name.endswith(TRAIN_IDS_SUFFIX)]
    seen = [(s, findings[s.name].counts) for s in expecting_ids if findings[s.name].counts]
    alike = [(s, counts) for s, counts in seen if train_ids.issuperset(counts)]
    total: Counter[int] = Counter()
    for _, counts in seen:
        total.update(counts)
    whole_set = len(alike) == len(seen) and total[0] > total[7]
    return [
        Problem(
            sample.name,
            "train ids",
            str(sample.label),
            "looks converted already: train ids where the original labelIds are expected; fetch the "
            'originals, or use layout "folder" without `ids`',
        )
        for sample, counts in alike
        if whole_set or IGNORE_INDEX in counts
    ]


def _count_classes(
    report: CheckReport, samples: list[Sample], findings: dict[str, _Finding], domain: Domain, classes: ClassSet
) -> None:
    pixels = np.zeros(256, np.int64)
    skipped = set(report.skip)
    for sample in samples:
        if sample.name in skipped or sample.label is None:
            continue
        train_ids = id_table(domain, classes, sample.label).train_ids
        for value, count in findings[sample.name].counts.items():
            pixels[train_ids[value]] += count
    report.pixels = {name: int(pixels[train_id]) for train_id, name in enumerate(classes.names)}
    report.ignored_pixels = int(pixels[IGNORE_INDEX])


def _suspect(
    report: CheckReport, samples: list[Sample], findings: dict[str, _Finding], domain: Domain, classes: ClassSet
) -> None:
    """Fill in what looks wrong about the sound labels, and the pairs to look at."""
    sound = {s.name: s for s in samples if s.label is not None and s.name not in report.skip}
    looks = {name: look for name in sound if (look := findings[name].look) is not None}
    tables = {name: id_table(domain, classes, s.label).train_ids for name, s in sound.items() if s.label is not None}
    pixels = np.zeros(256, np.int64)
    pixels[: len(classes)], pixels[IGNORE_INDEX] = [*report.pixels.values()], report.ignored_pixels
    if looks:
        report.suspicions += class_suspicions(pixels, classes)
        ignored = domain.layout == "folder" and domain.ids is None
        report.suspicions += foreground_suspicion({name: look.counts for name, look in looks.items()}, ignored)
        report.suspicions += label_suspicions(looks, tables, classes)
    # Turned on their side the sizes tell; upside down, mirrored or square they cannot.
    turned = [name for name in sound if findings[name].turned != 1]
    if turned:
        detail = f"{len(turned)} photographs are turned by their EXIF tag: look whether their labels are turned alike"
        report.suspicions.append(Suspicion("turned", detail, turned))
    report.suspects = _suspects(report, samples, findings)


def _suspects(report: CheckReport, samples: list[Sample], findings: dict[str, _Finding]) -> list[Suspect]:
    """Pairs that can be shown, those with a fault of the label first, then by how many suspicions name them."""
    faults = {problem.sample: problem.detail for problem in report.problems}
    named: dict[str, list[tuple[int, str]]] = {}
    for suspicion in report.suspicions:
        for place, name in enumerate(suspicion.samples):
            named.setdefault(name, []).append((place, suspicion.detail))
    why: dict[str, list[str]] = {}
    for sample in samples:
        if sample.label is None or findings[sample.name].size is None or findings[sample.name].look is None:
            continue
        if sample.name in faults:
            why[sample.name] = [faults[sample.name]]
        elif sample.name in named:
            why[sample.name] = [detail for _, detail in named[sample.name]]
    order = sorted(
        why, key=lambda name: (name not in faults, -len(why[name]), min((p for p, _ in named.get(name, [])), default=0))
    )
    files = {sample.name: sample for sample in samples}
    return [Suspect(name, str(files[name].image), str(files[name].label), why[name]) for name in order[:_NUM_SUSPECTS]]
