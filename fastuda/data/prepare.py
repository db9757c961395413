"""Pack a data set once: decode, resize, convert labels to train ids, and keep the result in the cache.

Original files are large and slow to decode, and their labels are in formats that DALI cannot read as
ids (palettes, 16-bit colours). The pack is what training and evaluation read. The user's folder is
only ever read.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastuda.classes import ClassSet
from fastuda.data import pack
from fastuda.data.cache import cache_folder
from fastuda.data.faults import SampleError, size_fault
from fastuda.data.images import JPEG_SIGNATURE, open_image, orientation, read_colour, read_file, turn
from fastuda.data.labels import decode_label, id_table, to_train_ids
from fastuda.data.layouts import Split, data_root, find_samples
from fastuda.data.listing import Sample, shown
from fastuda.data.pack import Packed, PackFormat, Record
from fastuda.data.parallel import run_parallel
from fastuda.data.png import encode_png
from fastuda.data.skip_list import read_skip_list
from fastuda.disk import append, make_folder, require_free, write_atomic, write_failure
from fastuda.errors import FastudaError
from fastuda.paths import user_path
from fastuda.recipe import Data, Domain
from fastuda.text_file import read_text

__all__ = ["LabelSize", "Packed", "encode_image", "prepare"]

LabelSize = Literal["none", "resized", "own"]
Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)

# Bytes a pixel (three for raw) to plan disk space with; bench/results/formats.json has the measured ones.
_BYTES_PER_PIXEL: dict[PackFormat, float] = {"png": 1.5, "jpeg": 0.5, "raw": 3.0}
_LABEL_BYTES_PER_PIXEL = 0.05
_LABEL_LEVEL = 3  # a quarter smaller than level 1 for 1 ms more
_MAX_STEM = 200  # file systems end at 255 bytes a name, and a suffix and a temporary name's prefix come on top


@dataclass(frozen=True)
class _Job:
    """What every sample of one call shares."""

    domain: Domain
    classes: ClassSet
    size: tuple[int, int]
    labels: LabelSize
    format: PackFormat
    folder: Path


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
) -> Packed:
    """Pack one split at `size` (width, height); returns at once when the cache holds it already.

    Images are resized bicubic, labels nearest (protocol rows 1 and 2) to `size` with "resized", or
    kept at their own with "own". Samples on the skip list of `check` are left out. A stopped call
    goes on where it stopped; source files that changed since are packed anew; two processes that
    want the same pack take turns. `progress(done, total)` follows the samples.

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
                f"move the other away, or run `fastuda data check {domain.layout} {data_root(domain)}`: it lists every "
                "such file and writes the skip list, with which they are left out"
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
    job = _Job(domain, classes, size, labels, data.pack, folder)
    make_folder(folder)
    with _locked(folder):
        digest, records = _brought_up_to_date(job, key, samples, workers, progress)
    names = [record.name for record in records]
    return Packed(folder, names, size, digest, listing.left_out(num_skipped), data.pack, records)


def _brought_up_to_date(
    job: _Job, key: dict[str, Any], samples: list[Sample], workers: int | None, progress: Progress | None
) -> tuple[str, list[Record]]:
    """Fingerprint and records of the pack, in the order of `samples`, after packing what is missing."""
    folder = job.folder
    pack.refuse_foreign(folder)
    finished = pack.read_index(folder, key)
    earlier = finished[1] if finished else pack.read_journal(folder)
    sources = {sample.name: _source_state(sample) for sample in samples}
    done = {
        record.name: record
        for record in earlier
        if sources.get(record.name) == record.source and pack.is_whole(folder, record)
    }
    todo = [sample for sample in samples if sample.name not in done]
    if finished and not todo and len(done) == len(finished[1]):
        return finished[0], [done[sample.name] for sample in samples]
    if finished or done:
        known = {record.name for record in earlier}
        num_new = sum(sample.name not in known for sample in todo)
        log.info(
            "%s: %d samples are packed already, %d are new, %d changed, %d are gone",
            folder, len(done), num_new, len(todo) - num_new, len(known - sources.keys()),
        )  # fmt: skip
    require_free(folder, _estimate(job, todo, sources), f"packing {len(todo)} samples of {key['root']}")
    make_folder(folder / pack.IMAGES)
    make_folder(folder / pack.LABELS)
    # The journal is whole before the index goes, so a kill between the two loses nothing.
    write_atomic(folder / pack.JOURNAL, b"".join(pack.journal_line(record) for record in done.values()))
    (folder / pack.INDEX).unlink(missing_ok=True)
    with closing(run_parallel(lambda sample: _pack(sample, sources[sample.name], job), todo, workers)) as packed:
        for _, record in packed:
            append(folder / pack.JOURNAL, pack.journal_line(record))
            done[record.name] = record
            if progress:
                progress(len(done), len(samples))
    _remove_leftovers(folder, done.values())
    records = [done[sample.name] for sample in samples]
    digest = pack.fingerprint(key["options"], records)
    write_atomic(folder / pack.INDEX, pack.index_content(key, digest, records))
    (folder / pack.JOURNAL).unlink()
    return digest, records


def _options(
    domain: Domain, split: Split, size: tuple[int, int], labels: LabelSize, classes: ClassSet, format: PackFormat
) -> dict[str, Any]:
    """All that decides the packed bytes, apart from the source files; part of the fingerprint."""
    about_labels: dict[str, Any] = {}
    if labels != "none":
        about_labels = {"classes": list(classes.names), "ids": domain.ids}
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


def _source_state(sample: Sample) -> list[int]:
    state: list[int] = []
    for path in (sample.image, sample.label):
        if path is not None:
            try:
                status = path.stat()
                state += [status.st_size, status.st_mtime_ns]
            except OSError:  # a dangling link, say; reading it will name it
                state += [0, 0]
    return state


def _estimate(job: _Job, todo: list[Sample], sources: dict[str, list[int]]) -> int:
    pixels = job.size[0] * job.size[1]
    total = len(todo) * pixels * _BYTES_PER_PIXEL[job.format]
    if job.labels == "resized":
        total += len(todo) * pixels * (1 if job.format == "raw" else _LABEL_BYTES_PER_PIXEL)
    elif job.labels == "own":
        total += 2 * sum(sources[sample.name][2] for sample in todo)
    return int(total)


def _pack(sample: Sample, source: list[int], job: _Job) -> Record:
    """Write one sample's packed files."""
    try:
        return _pack_sound(sample, source, job)
    except SampleError as error:
        raise FastudaError(
            f"{error}\nrun `fastuda data check {job.domain.layout} {data_root(job.domain)}`: it lists every such "
            "file and writes the skip list, with which they are left out"
        ) from error


def _pack_sound(sample: Sample, source: list[int], job: _Job) -> Record:
    stem = quote(os.fsencode(sample.name), safe=" ")
    if len(stem) > _MAX_STEM:
        stem = hashlib.sha256(stem.encode()).hexdigest()
    data = read_file(sample.image)
    checksums = [zlib.crc32(data)]
    image = read_colour(data, sample.image)
    own_size = image.size
    train_ids: NDArray[np.uint8] | None = None
    if sample.label is not None:
        label_data = read_file(sample.label)
        checksums.append(zlib.crc32(label_data))
        raw = decode_label(label_data, sample.label, job.domain.layout)
        if raw.shape != own_size[::-1]:
            raise size_fault(sample.label, own_size, (raw.shape[1], raw.shape[0]), turn(data))
        train_ids = to_train_ids(raw, id_table(job.domain, job.classes, sample.label), sample.label)
    if job.format != "raw" and _keeps(data, image, job.size):
        content, suffix = data, "jpg"
    else:
        resized = image if own_size == job.size else image.resize(job.size, Image.Resampling.BICUBIC)
        content, suffix = encode_image(np.asarray(resized), job.format)
    image_name, label_name, pixels = f"{stem}.{suffix}", None, None
    packed_bytes = [len(content)]
    write_atomic(job.folder / pack.IMAGES / image_name, content)
    if train_ids is not None:
        if job.labels == "resized" and own_size != job.size:
            train_ids = np.asarray(Image.fromarray(train_ids).resize(job.size, Image.Resampling.NEAREST))
        pixels = pack.count_pixels(train_ids, len(job.classes))
        as_pixels = job.format == "raw" and job.labels == "resized"
        content = train_ids.tobytes() if as_pixels else encode_png(train_ids, _LABEL_LEVEL)
        label_name = f"{stem}.{'raw' if as_pixels else 'png'}"
        packed_bytes.append(len(content))
        write_atomic(job.folder / pack.LABELS / label_name, content)
    return Record(sample.name, source, checksums, image_name, label_name, packed_bytes, pixels)


def _keeps(data: bytes, image: Image.Image, size: tuple[int, int]) -> bool:
    """Whether a source file is a JPEG that already is what a pack would hold: encoding it anew only loses."""
    if not data.startswith(JPEG_SIGNATURE) or image.size != size:
        return False
    original = open_image(data)
    return original.mode == "RGB" and orientation(original) == 1


def encode_image(pixels: NDArray[np.uint8], format: PackFormat) -> tuple[bytes, str]:
    """File content and suffix for an RGB image [H, W, 3] uint8."""
    if format == "png":
        return encode_png(pixels), "png"
    if format == "raw":
        return pixels.tobytes(), "raw"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=95, subsampling="4:4:4")
    return buffer.getvalue(), "jpg"


def _remove_leftovers(folder: Path, records: Iterable[Record]) -> None:
    """Delete packed files that no record names: of samples that are gone, and of runs that were killed."""
    used = {f"{pack.IMAGES}/{record.image}" for record in records}
    used |= {f"{pack.LABELS}/{record.label}" for record in records}
    for kind in (pack.IMAGES, pack.LABELS):
        for entry in os.scandir(folder / kind):
            if f"{kind}/{entry.name}" not in used:
                os.unlink(entry.path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes, such as the other ranks of a multi-GPU run."""
    try:
        lock = (folder / pack.LOCK).open("ab")
    except OSError as error:
        raise write_failure(folder / pack.LOCK, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
