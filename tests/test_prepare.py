"""A pack is exact, is made once, survives kills and full disks, and leaves the user's folder alone."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

import fastuda.files.disk as disk_module
from fastuda.classes import CITYSCAPES_19, ClassSet
from fastuda.data.checking.check import check
from fastuda.data.checking.skip_list import write_skip_list
from fastuda.data.packing.prepare import Packed, encode_image, prepare
from fastuda.data.reading.listing import LeftOut
from fastuda.errors import FastudaError
from fastuda.recipe import Data, Domain

CLASSES = ClassSet.of(CITYSCAPES_19)
NAMES = [f"{i:05d}" for i in range(8)]
Prepare = Callable[..., Packed]


def write_pair(root: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8))
    coarse.resize((48, 32), Image.Resampling.BICUBIC).save(root / f"images/{name}.png")
    ids = rng.choice([0, 7, 11, 23, 26, 34], (8, 12)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    label = Image.fromarray(ids).convert("P")
    label.putpalette([255 - i // 3 for i in range(768)])
    label.save(root / f"labels/{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        write_pair(tmp_path / "gta5", name, seed)
    return tmp_path / "gta5"


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Prepare:
    def call(**changes: Any) -> Packed:
        pack = changes.pop("pack", "png")
        settings: dict[str, Any] = {
            "domain": Domain(layout="gta5", root=root),
            "split": "train",
            "size": (24, 12),
            "labels": "resized",
            "classes": CLASSES,
            "data": Data(cache=tmp_path / "cache", pack=pack),
        }
        return prepare(**settings | changes)

    return call


def decode(encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(encoded.tobytes())))


def expected_image(root: Path, name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(root / f"images/{name}.png").resize((24, 12), Image.Resampling.BICUBIC))


def expected_label(root: Path, name: str, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    ids: Image.Image = Image.open(root / f"labels/{name}.png")
    if size:
        ids = ids.resize(size, Image.Resampling.NEAREST)
    mapping = {0: 255, 7: 0, 11: 2, 23: 10, 26: 13, 34: 255}
    return np.array([mapping[value] for value in np.asarray(ids).ravel()], np.uint8).reshape(ids.height, ids.width)


def state(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("pack", ["png", "jpeg", "raw"])
def test_packed_pixels_are_pillows(run: Prepare, root: Path, pack: str) -> None:
    before = state(root)
    packed = run(pack=pack)
    assert packed.names == NAMES
    assert (packed.size, packed.format, packed.left_out, len(packed)) == ((24, 12), pack, LeftOut(), 8)
    for i, name in enumerate(NAMES):
        raw = packed.image_bytes(i)
        assert raw.dtype == np.uint8
        assert raw.ndim == 1
        image = raw.reshape(12, 24, 3) if pack == "raw" else decode(raw)
        error = np.abs(image.astype(int) - expected_image(root, name)).max()
        assert error <= (12 if pack == "jpeg" else 0)
        label = packed.label_bytes(i).reshape(12, 24) if pack == "raw" else decode(packed.label_bytes(i))
        assert label.dtype == np.uint8
        assert np.array_equal(label, expected_label(root, name, (24, 12)))
        assert np.array_equal(label, packed.label_array(i))
    assert state(root) == before


@pytest.mark.parametrize("pack", ["png", "raw"])
def test_own_size_labels_and_none(run: Prepare, root: Path, pack: str) -> None:
    own = run(labels="own", pack=pack)
    assert np.array_equal(own.label_array(3), expected_label(root, NAMES[3], None))
    none = run(labels="none", pack=pack)
    with pytest.raises(ValueError, match="was packed without labels"):
        none.label_bytes(0)
    assert own.folder != none.folder


def test_a_second_call_does_no_work(run: Prepare) -> None:
    first = run()
    before = state(first.folder)
    calls: list[tuple[int, int]] = []
    second = run(progress=lambda *step: calls.append(step))
    assert second == first
    assert not calls
    assert state(first.folder) == before


class StopError(Exception):
    pass


def stop_after(count: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        assert total == len(NAMES)
        if done == count:
            raise StopError

    return progress


def test_a_killed_run_goes_on_where_it_stopped(run: Prepare, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        run(progress=stop_after(3), workers=1)
    (folder,) = (tmp_path / "cache").iterdir()
    assert not (folder / "index.json").exists()
    journal = folder / "journal.jsonl"
    finished = [json.loads(line)["image"] for line in journal.read_text().splitlines()]
    assert len(finished) == 3
    kept = {name: (folder / "images" / name).stat().st_mtime_ns for name in finished}
    with journal.open("a") as file:
        file.write('{"name": "000')  # as a kill in the middle of a write leaves it
    steps: list[tuple[int, int]] = []
    packed = run(progress=lambda *step: steps.append(step))
    assert steps == [(i, 8) for i in range(4, 9)]
    assert {name: (folder / "images" / name).stat().st_mtime_ns for name in finished} == kept
    assert packed.names == NAMES
    assert not journal.exists()
    assert packed.fingerprint == run(data=Data(cache=tmp_path / "elsewhere")).fingerprint


def test_a_full_disk_leaves_nothing_that_looks_whole(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, count = os.replace, 0

    def limited(temporary: Path, path: Path) -> None:
        nonlocal count
        count += 1
        if count > 6:
            temporary.write_bytes(temporary.read_bytes()[:-10])
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(temporary, path)

    with monkeypatch.context() as patch:
        patch.setattr(disk_module.os, "replace", limited)
        with pytest.raises(FastudaError, match=r"no space left on the disk; make room and run again"):
            run()
    (folder,) = (tmp_path / "cache").iterdir()
    assert not (folder / "index.json").exists()
    assert not list(folder.rglob("*.part"))
    for path in folder.glob("*/*"):
        Image.open(path).load()
    assert run().names == NAMES


def test_too_little_space_stops_before_the_first_file(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(FastudaError, match=r"packing 8 samples of .*gta5 needs about \d KiB, and 100 B are free"):
        run()
    assert not list((tmp_path / "cache").rglob("*.png"))


def test_changed_new_and_removed_sources_are_followed(
    run: Prepare, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run()
    kept = (first.folder / "images/00001.png").stat().st_mtime_ns
    write_pair(root, "00002", seed=99)
    write_pair(root, "00100", seed=100)
    for kind in ("images", "labels"):
        (root / kind / "00007.png").unlink()
    steps: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO, logger="fastuda"):
        second = run(progress=lambda *step: steps.append(step))
    assert "6 samples are packed already, 1 are new, 1 changed, 1 are gone" in caplog.text
    assert steps == [(7, 8), (8, 8)]
    assert second.folder == first.folder
    assert second.names == [*NAMES[:7], "00100"]
    assert np.array_equal(decode(second.image_bytes(2)), expected_image(root, "00002"))
    assert (first.folder / "images/00001.png").stat().st_mtime_ns == kept
    assert not (first.folder / "images/00007.png").exists()
    assert second.fingerprint != first.fingerprint
    for kind in ("images", "labels"):
        (root / kind / "00100.png").unlink()
    third = run()
    assert third.names == NAMES[:7]
    assert third.fingerprint != second.fingerprint


def test_a_damaged_pack_is_mended(run: Prepare, root: Path) -> None:
    packed = run()
    (packed.folder / "images/00004.png").write_bytes(b"")
    (packed.folder / "labels/00005.png").unlink()
    again = run()
    assert again == packed
    assert np.array_equal(decode(again.image_bytes(4)), expected_image(root, "00004"))
    assert np.array_equal(again.label_array(5), expected_label(root, "00005", (24, 12)))


def test_foreign_folders_are_refused(run: Prepare) -> None:
    folder = run().folder
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(FastudaError, match=r"holds thesis\.tex, which is no part of a packed data set"):
        run()
    assert (folder / "thesis.tex").read_text() == "mine"


def test_options_and_content_decide_the_fingerprint(run: Prepare, root: Path, tmp_path: Path) -> None:
    prints = [
        run().fingerprint,
        run(size=(12, 6)).fingerprint,
        run(labels="own").fingerprint,
        run(pack="raw").fingerprint,
        run(classes=ClassSet.of(("sky", "road"))).fingerprint,
        run(classes=ClassSet.of(("sky", "road"), merged={"road": ("sidewalk",)})).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    os.utime(root / "images/00000.png")
    assert run().fingerprint == prints[0]
    root.rename(tmp_path / "moved")
    assert run(domain=Domain(layout="gta5", root=tmp_path / "moved")).fingerprint == prints[0]


@pytest.mark.parametrize("pack", ["png", "jpeg", "raw"])
def test_jpeg_sources_at_the_packed_size_are_encoded_anew(run: Prepare, tmp_path: Path, pack: str) -> None:
    (tmp_path / "photos").mkdir()
    picture = Image.effect_noise((24, 12), 50).convert("RGB")
    picture.save(tmp_path / "photos/a.jpg")
    picture.convert("L").save(tmp_path / "photos/b.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.rotate(90, expand=True).save(tmp_path / "photos/c.jpg", exif=turned)
    domain = Domain(layout="folder", root=tmp_path / "photos", images="*.jpg")
    packed = run(domain=domain, labels="none", pack=pack)
    for i, name in enumerate("abc"):
        upright = ImageOps.exif_transpose(Image.open(tmp_path / f"photos/{name}.jpg")).convert("RGB")
        assert packed.image_bytes(i).tobytes() == encode_image(np.asarray(upright), packed.format)[0]


def test_names_with_folders_and_odd_characters(run: Prepare, tmp_path: Path) -> None:
    names = ["a/x y", "b/ü%2F", "b/" + "long" * 60]
    for name in names:
        path = tmp_path / "odd" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 12), (len(name), 0, 0)).save(path)
    domain = Domain(layout="folder", root=tmp_path / "odd", images="*/*.png")
    packed = run(domain=domain, labels="none")
    assert packed.names == sorted(names)
    assert [int(decode(packed.image_bytes(i))[0, 0, 0]) for i in range(3)] == [len(name) for name in sorted(names)]


def test_two_calls_at_once_share_the_work(run: Prepare) -> None:
    steps: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(run, progress=lambda done, total: steps.append(done)) for _ in range(2)]
        first, second = (call.result() for call in calls)
    assert first == second
    assert sorted(steps) == list(range(1, 9))


def test_the_data_side_starts_without_torch() -> None:
    heavy = "('torch', 'nvidia.dali', 'cv2')"
    code = f"import sys, fastuda.data.packing.prepare; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_all_samples_skipped_is_an_error(run: Prepare, root: Path, tmp_path: Path) -> None:
    domain = Domain(layout="gta5", root=root)
    for name in NAMES:
        (root / f"images/{name}.png").write_bytes(b"")
    write_skip_list(tmp_path / "cache", domain, check(domain, CLASSES, "train", labelled=True))
    with pytest.raises(FastudaError, match="all 8 samples are on the skip list"):
        run()


def test_dali_decodes_packed_files_exactly(run: Prepare, root: Path) -> None:
    dali = pytest.importorskip("nvidia.dali")

    def decoded(encoded: NDArray[np.uint8], kind: Any) -> NDArray[np.uint8]:
        pipe = dali.Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
        with pipe:
            source = dali.fn.external_source(lambda: [encoded], dtype=dali.types.UINT8, ndim=1)
            pipe.set_outputs(dali.fn.decoders.image(source, output_type=kind))
        pipe.build()
        return np.asarray(pipe.run()[0].as_array()[0])

    packed = run()
    assert np.array_equal(decoded(packed.image_bytes(0), dali.types.RGB), expected_image(root, NAMES[0]))
    label = decoded(packed.label_bytes(0), dali.types.GRAY)
    assert np.array_equal(label[..., 0], expected_label(root, NAMES[0], (24, 12)))


def test_png_is_lossless_for_any_shape() -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 3), (1, 9, 3), (7, 1, 3), (33, 20, 3)):
        pixels = rng.integers(0, 256, shape, np.uint8)
        content, suffix = encode_image(pixels, "png")
        assert suffix == "png"
        assert np.array_equal(decode(np.frombuffer(content, np.uint8)), pixels)


def test_two_files_for_one_sample_stop_it_until_check_has_put_them_on_the_skip_list(
    run: Prepare, root: Path, tmp_path: Path
) -> None:
    (root / f"images/{NAMES[0]}.jpg").write_bytes((root / f"images/{NAMES[1]}.png").read_bytes())
    with pytest.raises(FastudaError, match=rf"images/{NAMES[0]}\.(jpg|png), .*2 files stand for one sample"):
        run()
    domain = Domain(layout="gta5", root=root)
    report = check(domain, CLASSES, "train", labelled=True)
    assert {problem.kind for problem in report.problems} == {"two files"}
    assert report.skip == [NAMES[0]]
    assert report.num_sound == report.num_samples == len(NAMES) - 1
    write_skip_list(tmp_path / "cache", domain, report)
    packed = run()
    assert packed.names == NAMES[1:]
    assert packed.left_out == LeftOut(twice=1)
    assert str(packed.left_out) == "1 sample with two files"
    (root / f"images/{NAMES[0]}.jpg").unlink()
    assert run().left_out == LeftOut()


def test_lonely_files_are_counted_or_an_error_by_their_share(run: Prepare, root: Path, tmp_path: Path) -> None:
    (root / f"labels/{NAMES[0]}.png").unlink()
    with pytest.raises(FastudaError, match=r"1 of 8 images have no label of their name.*max_unpaired=0\.13"):
        run()
    packed = run(data=Data(cache=tmp_path / "cache", max_unpaired=0.13))
    assert packed.left_out == LeftOut(without_label=1)
    assert packed.label_pixels().sum(1).tolist() == [24 * 12] * 7
    with pytest.raises(ValueError, match="packed without labels"):
        run(labels="none").label_pixels()
