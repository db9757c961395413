"""Pack a data set once: decode, resize, convert labels to train ids, and keep the result in the cache.

Original files are large and slow to decode, and their labels are in formats that DALI cannot read as
ids (palettes, 16-bit colours). The pack is what training and evaluation read. The user's folder is
only ever read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastuda.classes import ClassSet
from fastuda.data.cache import cache_folder
from fastuda.data.checking.command import check_command
from fastuda.data.checking.skip_list import read_skip_list
from fastuda.data.packing import pack, pack_index
from fastuda.data.packing.mend import Mender
from fastuda.data.packing.pack import Packed, PackFormat, Record
from fastuda.data.packing.pack_index import Index
from fastuda.data.packing.pack_sample import Job, LabelSize, encode_image, pack_sample, source_state
from fastuda.data.packing.sharded import Sharded
from fastuda.data.packing.shards import lay_out
from fastuda.data.parallel import run_parallel
from fastuda.data.reading.faults import SampleError
from fastuda.data.reading.listing import Sample, counted, shown
from fastuda.data.reading.samples import Split, data_root, find_samples
from fastuda.errors import FastudaError
from fastuda.files.disk import append, make_folder, remove, require_free, write_atomic, write_failure
from fastuda.files.lock import Look, held
from fastuda.files.paths import user_path
from fastuda.files.text_file import read_text
from fastuda.printable import on_one_line
from fastuda.recipe import Data, Domain

__all__ = ["LabelSize", "Packed", "encode_image", "prepare"]

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)

_PACKING, _SHARDING = "packing", "laying out shards"
# Bytes a pixel (three for raw) to plan disk space with; bench/results/formats.json has the measured ones.
_BYTES_PER_PIXEL: dict[PackFormat, float] = {"png": 1.5, "jpeg": 0.5, "raw": 3.0}
_LABEL_BYTES_PER_PIXEL = 0.05


def prepare(
    domain: Domain,
    split: Split,
    *,
    size: tuple[int, int],
    labels: LabelSize,
    classes: ClassSet,
    data: Data,
    workers: int | None = None,
    progress: Progress | None = None,
    look: Look | None = None,
) -> Packed:
    """Pack one split at `size` (width, height); returns at once when the cache holds it already.

    Images are resized bicubic, labels nearest (protocol rows 1 and 2) to `size` with "resized", or
    kept at their own with "own". Samples on the skip list of `check` are left out. A stopped call
    goes on where it stopped; source files that changed since are packed anew; with `data.shard_mb` training packs are
    laid out in shards, too; two processes that
    want the same pack take turns. `progress(done, total)` follows the samples; `look` is called while
    another process that packs is waited for.

    FastudaError: an unusable file (named), too little disk space, a cache folder with foreign
    or broken content.
    """
    listing = find_samples(domain, split, labelled=labels != "none")
    cache = cache_folder(data)
    skip = read_skip_list(cache, domain, split, labelled=labels != "none", classes=classes)
    for name, paths in listing.twice.items():
        if name not in skip:
            raise FastudaError(
                f"{shown(paths)}: {len(paths)} files stand for one sample ({name}), and only one can be meant; "
                f"move the other away, or {_checked(domain, split, labels, classes, data)}"
            )
    listing.require_partners(data.max_unpaired, data_root(domain))
    samples = [sample for sample in listing.samples if sample.name not in skip]
    num_skipped = len(listing.samples) - len(samples)
    if not samples:
        raise FastudaError(
            f"{data_root(domain)}: all {num_skipped} samples are on the skip list of `fastuda data check`"
        )
    options = _options(domain, split, size, labels, classes, data.pack)
    key = {"root": str(data_root(domain)), "options": options}
    short = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache / f"{domain.layout}-{split}-{size[0]}x{size[1]}-{data.pack}-{short}"
    job = Job(domain, classes, size, labels, data.pack, folder)
    make_folder(folder)
    found = _sound_and_read_only(job, key, samples)
    if found is None:
        with held(folder, _PACKING, wait=True, look=look):
            try:
                found = _brought_up_to_date(job, key, samples, workers, progress)
            except SampleError as error:
                raise FastudaError(f"{error}\n{_checked(domain, split, labels, classes, data)}") from error
    digest, records = found
    packed = Packed(
        folder,
        [record.name for record in records],
        size,
        digest,
        listing.left_out(num_skipped),
        data.pack,
        records,
        labels == "own",
        Mender(job, key, samples, lambda patience: held(folder, _PACKING, wait=patience > 0, patience=patience)),
    )
    if not data.shard_mb or labels == "own":  # an evaluation reads each file once, in order
        return packed
    with held(folder, _SHARDING, wait=True, look=look, reading=True):
        layout = lay_out(packed, data.shard_mb, look)
    return Sharded.of(packed, layout, data.shards_mixed)


def _checked(domain: Domain, split: Split, labels: LabelSize, classes: ClassSet, data: Data) -> str:
    """How to have every faulty file of a split named and left out."""
    command = check_command(domain, split, labelled=labels != "none", classes=classes, data=data)
    return f"run {command}: it lists every such file and writes the skip list, with which they are left out"


def _sound_and_read_only(job: Job, key: dict[str, Any], samples: list[Sample]) -> tuple[str, list[Record]] | None:
    """The finished pack of a folder that nothing can be written to, not even a lock; None for any other."""
    if os.access(job.folder, os.W_OK):
        return None
    pack_index.refuse_foreign(job.folder)
    state = _state(job, key, samples)
    return state.finished(samples)


@dataclass(frozen=True)
class _State:
    """What of a pack is there already."""

    index: Index | None
    earlier: dict[str, Record]
    """By sample name: what the index or the journal says."""
    done: dict[str, Record]
    """Those whose sources have not changed and whose packed files are there."""
    damaged: list[Path]
    """Packed files of unchanged sources that are gone or of another size."""
    sources: dict[str, list[int]]

    def finished(self, samples: list[Sample]) -> tuple[str, list[Record]] | None:
        """Fingerprint and records of a pack that holds just these samples; None when there is something to do."""
        if self.index is None or self.index.fingerprint is None or {s.name for s in samples} != self.earlier.keys():
            return None
        if len(self.done) < len(self.earlier):
            return None
        return self.index.fingerprint, [self.done[sample.name] for sample in samples]


def _state(job: Job, key: dict[str, Any], samples: list[Sample]) -> _State:
    index = pack_index.read_index(job.folder, key)
    journal = [] if index and index.fingerprint else pack_index.read_journal(job.folder, key)
    earlier = {record.name: record for record in [*(index.records if index else []), *journal]}
    sources = {sample.name: source_state(sample) for sample in samples}
    done, damaged = {}, []
    for name, record in earlier.items():
        if sources.get(name) == record.source:
            files = pack_index.damaged_files(job.folder, record)
            damaged += files
            if not files:
                done[name] = record
    return _State(index, earlier, done, damaged, sources)


def _brought_up_to_date(
    job: Job, key: dict[str, Any], samples: list[Sample], workers: int | None, progress: Progress | None
) -> tuple[str, list[Record]]:
    """Fingerprint and records of the pack, in the order of `samples`, after packing what is missing or damaged."""
    folder = job.folder
    pack_index.refuse_foreign(folder)
    state = _state(job, key, samples)
    finished = state.finished(samples)
    if finished is not None:
        return finished
    todo = [sample for sample in samples if sample.name not in state.done]
    _say_what_is_damaged(folder, state, len(todo))
    if state.index or state.done:
        num_new = sum(sample.name not in state.earlier for sample in todo)
        log.info(
            "%s: %d samples are packed already, %d are new, %d changed, %d are gone",
            folder, len(state.done), num_new, len(todo) - num_new, len(state.earlier.keys() - state.sources.keys()),
        )  # fmt: skip
    require_free(folder, _estimate(job, todo, state.sources), f"packing {len(todo)} samples of {key['root']}")
    for kind in pack.KINDS:
        make_folder(folder / kind)
    # The journal is whole before the index goes, so a kill between the two loses nothing.
    journal = b"".join(pack_index.journal_line(record, key) for record in state.done.values())
    write_atomic(folder / pack.JOURNAL, journal)
    remove(folder / pack.INDEX)
    done = dict(state.done)
    with closing(run_parallel(lambda sample: _pack(sample, state.sources[sample.name], job), todo, workers)) as packed:
        for _, record in packed:
            append(folder / pack.JOURNAL, pack_index.journal_line(record, key))
            done[record.name] = record
            if progress:
                progress(len(done), len(samples))
    _remove_leftovers(folder, done.values())
    records = [done[sample.name] for sample in samples]
    digest = pack.fingerprint(key["options"], records)
    write_atomic(folder / pack.INDEX, pack_index.index_content(key, digest, records))
    remove(folder / pack.JOURNAL)
    return digest, records


def _say_what_is_damaged(folder: Path, state: _State, num_todo: int) -> None:
    begun = (folder / pack.JOURNAL).exists()  # a pack that was left half made has no index yet
    if state.index is None and not begun and any(any((folder / kind).glob("*")) for kind in pack.KINDS):
        log.warning("%s: gone since it was written; all is packed again", folder / pack.INDEX)
    if state.index is not None and state.index.fingerprint is None:
        log.warning(
            "%s: damaged since it was written; made anew, and %s packed again",
            folder / pack.INDEX, counted(num_todo, "sample"),
        )  # fmt: skip
    if state.damaged:
        log.warning(
            "%s: damaged since %s packed (gone, or of another size); made anew from the source",
            shown(state.damaged), "it was" if len(state.damaged) == 1 else "they were",
        )  # fmt: skip


def _options(
    domain: Domain, split: Split, size: tuple[int, int], labels: LabelSize, classes: ClassSet, format: PackFormat
) -> dict[str, Any]:
    """All that decides the packed bytes, apart from the source files; part of the fingerprint."""
    about_labels: dict[str, Any] = {}
    if labels != "none":
        about_labels = {"classes": list(classes.names), "ids": domain.ids}
        if classes.merged:
            about_labels["merged"] = dict(classes.merged)
    globs = [domain.images, domain.labels] if split == "train" else [domain.val_images, domain.val_labels]
    listing = read_text(user_path(domain.listing)) if domain.listing and split == "train" else None
    return {
        "version": pack.FORMAT_VERSION,
        "layout": domain.layout,
        "split": domain.split if split == "train" else domain.val_split,
        "globs": globs,
        "listing": listing and hashlib.sha256(listing.encode()).hexdigest(),
        "size": list(size),
        "labels": labels,
        "format": format,
        **about_labels,
    }


def _estimate(job: Job, todo: list[Sample], sources: dict[str, list[int]]) -> int:
    pixels = job.size[0] * job.size[1]
    total = len(todo) * pixels * _BYTES_PER_PIXEL[job.format]
    if job.labels == "resized":
        total += len(todo) * pixels * (1 if job.format == "raw" else _LABEL_BYTES_PER_PIXEL)
    elif job.labels == "own":
        total += 2 * sum(sources[sample.name][2] for sample in todo)
    return int(total)


def _pack(sample: Sample, source: list[int], job: Job) -> Record:
    """Write one sample's packed files. SampleError when one cannot be used; FastudaError, with the sample's image, when
    no memory is left for it.
    """
    try:
        return pack_sample(sample, source, job)
    except MemoryError as error:
        raise FastudaError(
            f"{on_one_line(sample.image)}: this machine's memory is full where the sample is to be packed; what is "
            "packed stays: free memory and run again, which goes on from there"
        ) from error


def _remove_leftovers(folder: Path, records: Iterable[Record]) -> None:
    """Delete packed files that no record names: of samples that are gone, and of runs that were killed.

    A folder that is gone has none: whoever deleted the cache meant to, and training makes its files anew.
    """
    used = {f"{pack.IMAGES}/{record.image}" for record in records}
    used |= {f"{pack.LABELS}/{record.label}" for record in records}
    for kind in (pack.IMAGES, pack.LABELS):
        for path in _entries(folder / kind):
            if f"{kind}/{path.name}" in used:
                continue
            if path.is_dir() and not path.is_symlink():
                raise FastudaError(f"{path}: a folder, which is no part of a packed data set; move it away")
            remove(path)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise write_failure(folder, error) from error
