"""The doctor's findings on this machine, on machines made up, and on data folders in several states."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fastuda.report.doctor
from fastuda.recipe import Domain
from fastuda.report.doctor import Finding, examine


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def by_subject(*domains: Domain) -> dict[str, Finding]:
    found = examine(domains)
    assert len({finding.subject for finding in found}) == len(found)
    return {finding.subject: finding for finding in found}


def test_a_machine_that_runs_the_tests_has_what_a_run_needs() -> None:
    found = by_subject()
    assert list(found) == ["Python", "torch", "GPU", "triton", "C compiler", "nvidia-dali-cuda130", "cache"]
    for subject in ("Python", "torch", "triton", "nvidia-dali-cuda130"):
        assert found[subject].status == "ok"
    assert torch.__version__ in found["torch"].found


def test_what_is_not_in_order_comes_with_advice() -> None:
    for finding in by_subject(Domain(layout="gta5", root=Path("/nowhere"))).values():
        assert bool(finding.advice) == (finding.status != "ok"), finding


def test_a_gpu_is_named_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 << 30, 8 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "RTX")
    assert by_subject()["GPU"] == Finding("GPU", "ok", "RTX, 3.0 of 8.0 GiB free")


def test_a_missing_compiler_is_noted_and_the_one_named_by_cc_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert (by_subject()["C compiler"].status, by_subject()["C compiler"].found) == ("note", "none")
    own = tmp_path / "own-cc"
    own.touch(0o755)
    monkeypatch.setenv("CC", "own-cc")
    assert by_subject()["C compiler"] == Finding("C compiler", "ok", str(own))


def test_a_cpu_build_of_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert by_subject()["GPU"].found == "torch is a CPU build"


@pytest.mark.parametrize(
    ("driver", "said", "advised"),
    [
        (None, "no NVIDIA driver", "training runs on the CPU"),
        ("NVRM version: 470.1\nGCC", "torch cannot use one; NVRM version: 470.1", "too old for CUDA 13.0"),
    ],
)
def test_a_missing_driver_is_told_from_an_old_one(
    driver: str | None, said: str, advised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "version"
    if driver is not None:
        file.write_text(driver)
    monkeypatch.setattr(fastuda.report.doctor, "_DRIVER", file)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = by_subject()["GPU"]
    assert (found.status, found.found) == ("note", said)
    assert advised in found.advice


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    found = by_subject()
    assert found["triton"] == Finding("triton", "missing", "not installed", "kernels fall back to plain PyTorch")
    assert found["nvidia-dali-cuda130"].status == "missing"
    assert "pip install nvidia-dali-cuda130" in found["nvidia-dali-cuda130"].advice


@pytest.mark.parametrize(("free_gib", "status"), [(49, "note"), (51, "ok")])
def test_a_small_disk_is_noted(free_gib: int, status: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_gib << 30))
    found = by_subject()["cache"]
    assert found.status == status
    assert found.found == f"{cache}, {free_gib}.0 GiB free"
    assert ("FASTUDA_CACHE" in found.advice) == (status == "note")


def test_a_cache_that_cannot_be_written_is_told_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = by_subject()["cache"]
    assert found.status == "missing"
    assert "not writable" in found.found
    assert "FASTUDA_CACHE" in found.advice


def test_looking_makes_no_folder(cache: Path) -> None:
    by_subject()
    assert not cache.exists()


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.fixture
def gta5(tmp_path: Path) -> Callable[..., Domain]:
    def made(images: str, labels: str) -> Domain:
        root = tmp_path / "gta5"
        touch(*(root / "images" / f"{name}.png" for name in images))
        touch(*(root / "labels" / f"{name}.png" for name in labels))
        return Domain(layout="gta5", root=root)

    return made


def test_a_complete_data_set_is_counted(gta5: Callable[..., Domain], tmp_path: Path) -> None:
    found = by_subject(gta5("abc", "abc"))["gta5 train"]
    assert found == Finding("gta5 train", "ok", f"3 samples in {tmp_path / 'gta5'}")


def test_files_without_partner_are_counted_with_the_command_that_names_them(
    gta5: Callable[..., Domain], tmp_path: Path
) -> None:
    found = by_subject(gta5("abc", "bcde"))["gta5 train"]
    assert found.status == "note"
    assert (
        found.found == f"2 samples in {tmp_path / 'gta5'}; not used: 1 image without a label, 2 labels without an image"
    )
    assert found.advice == f"`fastuda data check gta5 {tmp_path / 'gta5'} --labels` names them"


def test_a_missing_folder_is_named_with_what_is_expected_there(tmp_path: Path) -> None:
    found = by_subject(Domain(layout="synthia", root=tmp_path / "syn"))["synthia train"]
    assert found.status == "missing"
    assert f"{tmp_path / 'syn'}: no such folder" in found.found
    assert "GT/LABELS" in found.found


def test_the_target_needs_labels_for_evaluation_alone(tmp_path: Path) -> None:
    name = "aachen/aachen_000000_000019"
    touch(*(tmp_path / f"leftImg8bit/{split}/{name}_leftImg8bit.png" for split in ("train", "val")))
    found = by_subject(Domain(layout="cityscapes", root=tmp_path))
    assert found["cityscapes train"].status == "ok"
    assert found["cityscapes val"].status == "missing"
    assert "gtFine" in found["cityscapes val"].found
