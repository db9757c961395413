"""Which format should packed images have? Bytes, time to encode, time for DALI to decode on the CPU, error."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, types
from PIL import Image
from rich.console import Console
from rich.table import Table

from fastuda.data.packing.prepare import encode_image
from fastuda.data.reading.png import encode_png
from fastuda_bench.prepare import PACKED_SIZE, made_pair
from fastuda_bench.results import Row, stamp, summary

Pixels = NDArray[np.uint8]
Encoder = Callable[[Pixels], bytes]


def _by_pillow(**options: Any) -> Encoder:
    def encode(pixels: Pixels) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, **options)
        return buffer.getvalue()

    return encode


FORMATS: dict[str, Encoder] = {
    "png (fastuda)": lambda pixels: encode_image(pixels, "png")[0],
    "png (fastuda), level 0": lambda pixels: encode_png(pixels, 0),
    "png (fastuda), level 4": lambda pixels: encode_png(pixels, 4),
    "png (Pillow), level 1": _by_pillow(format="png", compress_level=1),
    "png (Pillow), level 6": _by_pillow(format="png", compress_level=6),
    "jpeg 95 4:4:4": lambda pixels: encode_image(pixels, "jpeg")[0],
    "jpeg 95 4:2:0": _by_pillow(format="jpeg", quality=95, subsampling="4:2:0"),
    "webp lossless": _by_pillow(format="webp", lossless=True, method=0),
    "jpeg 2000 lossless": _by_pillow(format="jpeg2000"),
    "bmp": _by_pillow(format="bmp"),
    "raw": lambda pixels: encode_image(pixels, "raw")[0],
}


def format_rows(num_images: int = 4, repeats: int = 5) -> list[Row]:
    """One row a format, over made 1280x720 images; decode is one DALI CPU thread, `raw` DALI's reshape.

    The error is that of DALI's pixels against the original, in 8-bit levels.
    """
    images = [
        np.asarray(Image.fromarray(made_pair(seed)[0]).resize(PACKED_SIZE, Image.Resampling.BICUBIC))
        for seed in range(num_images)
    ]
    rows = []
    for name, encode in FORMATS.items():
        encode_ms, encoded = _timed_encodes(encode, images, repeats)
        decode_ms, decoded = _timed_decodes(encoded, repeats, raw=name == "raw")
        errors = [np.abs(a.astype(np.int16) - b) for a, b in zip(images, decoded, strict=True)]
        rows.append(
            {
                "question": "formats",
                "format": name,
                "size": PACKED_SIZE,
                "num_images": num_images,
                "bytes_an_image": sum(map(len, encoded)) // num_images,
                "encode_ms": summary(encode_ms),
                "decode_ms": summary(decode_ms),
                "max_error": int(max(error.max() for error in errors)),
                "mean_error": round(float(np.mean([error.mean() for error in errors])), 3),
                **stamp(["pillow", "numpy", "nvidia-dali-cuda130"]),
            }
        )
    return rows


def main(num_images: int = 4, repeats: int = 5) -> list[Row]:
    """Measure every format, print a table, and return the rows."""
    rows = format_rows(num_images, repeats)
    table = Table(title=f"packed formats: {num_images} images 1280x720, DALI on one CPU thread")
    for column in ("format", "kB an image", "encode ms", "decode ms", "spread", "max error", "mean error"):
        table.add_column(column, justify="left" if column == "format" else "right")
    for row in rows:
        table.add_row(
            row["format"],
            f"{row['bytes_an_image'] / 1000:.0f}",
            f"{row['encode_ms']['median']:.1f}",
            f"{row['decode_ms']['median']:.1f}",
            f"{row['decode_ms']['spread']:.1f}",
            str(row["max_error"]),
            f"{row['mean_error']:.2f}",
        )
    Console().print(table)
    return rows


def _timed_encodes(encode: Encoder, images: list[Pixels], repeats: int) -> tuple[list[float], list[bytes]]:
    """Milliseconds an image, one value a repeat, and the encoded images."""
    times, encoded = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        encoded = [encode(image) for image in images]
        times.append(1000 * (time.perf_counter() - start) / len(images))
    return times, encoded


def _timed_decodes(encoded: list[bytes], repeats: int, raw: bool) -> tuple[list[float], list[Pixels]]:
    """Milliseconds an image of DALI's CPU pipeline, one value a repeat, and the decoded images."""
    files = [np.frombuffer(content, np.uint8) for content in encoded]
    pipe = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipe:
        source = fn.external_source(
            lambda info: files[info.idx_in_epoch % len(files)], batch=False, dtype=types.UINT8, ndim=1
        )
        if raw:
            pipe.set_outputs(fn.reshape(source, shape=[PACKED_SIZE[1], PACKED_SIZE[0], 3], layout="HWC"))
        else:
            pipe.set_outputs(fn.decoders.image(source, output_type=types.RGB))
    pipe.build()

    def decode_all() -> list[Pixels]:
        return [np.array(pipe.run()[0].as_array()[0]) for _ in files]

    decode_all()  # starts DALI's threads and allocates its buffers
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in files:
            pipe.run()
        times.append(1000 * (time.perf_counter() - start) / len(files))
    return times, decode_all()
