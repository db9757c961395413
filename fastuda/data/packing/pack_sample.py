"""One sample packed: decoded, resized, its label in train ids, both encoded anew."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastuda.classes import ClassSet
from fastuda.data.packing.pack import IMAGES, LABELS, PackFormat, Record, count_pixels
from fastuda.data.reading.faults import size_fault
from fastuda.data.reading.images import read_colour, read_file, turn
from fastuda.data.reading.labels import decode_label, id_table, to_train_ids
from fastuda.data.reading.listing import Sample
from fastuda.data.reading.png import encode_png
from fastuda.files.disk import write_atomic
from fastuda.recipe import Domain

LabelSize = Literal["none", "resized", "own"]
_LABEL_LEVEL = 3  # a quarter smaller than level 1 for 1 ms more
_MAX_STEM = 200  # file systems end at 255 bytes a name, and a suffix and a temporary name's prefix come on top


@dataclass(frozen=True)
class Job:
    """What every sample of one pack shares."""

    domain: Domain
    classes: ClassSet
    size: tuple[int, int]
    labels: LabelSize
    format: PackFormat
    folder: Path


def make_image(data: bytes, path: Path, job: Job) -> tuple[bytes, str, tuple[int, int]]:
    """Packed bytes and suffix of a source image's `data`, and its own (width, height), upright.

    Whatever is packed was decoded and encoded here: bytes of others, even of the right format and size, may be damaged
    in ways that one decoder forgives and the next does not. SampleError for an image that cannot be decoded.
    """
    image = read_colour(data, path)
    resized = image if image.size == job.size else image.resize(job.size, Image.Resampling.BICUBIC)
    return *encode_image(np.asarray(resized), job.format), image.size


def make_label(raw: NDArray[Any], path: Path, job: Job) -> tuple[bytes, str, list[int]]:
    """Packed bytes and suffix of a label's values [H, W], and its pixels by train id; SampleError for unknown ones."""
    train_ids = to_train_ids(raw, id_table(job.domain, job.classes, path), path)
    if job.labels == "resized" and train_ids.shape != job.size[::-1]:
        train_ids = np.asarray(Image.fromarray(train_ids).resize(job.size, Image.Resampling.NEAREST))
    pixels = count_pixels(train_ids, len(job.classes))
    if job.format == "raw" and job.labels == "resized":
        return train_ids.tobytes(), "raw", pixels
    return encode_png(train_ids, _LABEL_LEVEL), "png", pixels


def pack_sample(sample: Sample, source: list[int], job: Job) -> Record:
    """Write one sample's packed files; `source` is their `source_state`. SampleError for a file that cannot be used."""
    stem = quote(os.fsencode(sample.name), safe=" ")
    if len(stem) > _MAX_STEM:
        stem = hashlib.sha256(stem.encode()).hexdigest()
    data = read_file(sample.image)
    checksums = [zlib.crc32(data)]
    content, suffix, own_size = make_image(data, sample.image, job)
    image_name, label_name, pixels = f"{stem}.{suffix}", None, None
    contents = [content]
    if sample.label is not None:
        label_data = read_file(sample.label)
        checksums.append(zlib.crc32(label_data))
        raw = decode_label(label_data, sample.label, job.domain.layout)
        if raw.shape != own_size[::-1]:
            raise size_fault(sample.label, own_size, (raw.shape[1], raw.shape[0]), turn(data))
        content, suffix, pixels = make_label(raw, sample.label, job)
        label_name = f"{stem}.{suffix}"
        contents.append(content)
        write_atomic(job.folder / LABELS / label_name, content)
    write_atomic(job.folder / IMAGES / image_name, contents[0])
    packed_bytes, packed_checksums = [len(one) for one in contents], [zlib.crc32(one) for one in contents]
    return Record(sample.name, source, checksums, image_name, label_name, packed_bytes, packed_checksums, pixels)


def source_state(sample: Sample) -> list[int]:
    """[bytes, modification time in ns] of the image and, if there is one, the label; zeros for a file that is gone."""
    state: list[int] = []
    for path in (sample.image, sample.label):
        if path is not None:
            try:
                status = path.stat()
                state += [status.st_size, status.st_mtime_ns]
            except OSError:  # a dangling link, say; reading it will name it
                state += [0, 0]
    return state


def encode_image(pixels: NDArray[np.uint8], format: PackFormat) -> tuple[bytes, str]:
    """File content and suffix for an RGB image [H, W, 3] uint8."""
    if format == "png":
        return encode_png(pixels), "png"
    if format == "raw":
        return pixels.tobytes(), "raw"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=95, subsampling="4:4:4")
    return buffer.getvalue(), "jpg"
