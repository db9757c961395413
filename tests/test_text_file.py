"""Text files as users' systems write them: lists of names and recipes alike."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from fastuda.data.reading.samples import find_samples
from fastuda.errors import FastudaError, UsageError
from fastuda.files.text_file import read_text, without_comment
from fastuda.recipe import Domain
from fastuda.recipe.file import load_recipe

TEXT = "# a list\r\n\r\n00001.png  # the first\r\n  00002\t\r\nimages\\00003.png\r\n"
WRITTEN = {
    "utf-8": TEXT.encode(),
    "utf-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "utf-16 little": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "utf-16 big": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "utf-16 little, no mark": TEXT.encode("utf-16-le"),
    "utf-16 big, no mark": TEXT.encode("utf-16-be"),
    "unix": TEXT.replace("\r", "").encode(),
    "old mac": TEXT.replace("\n", "").encode(),
}


@pytest.mark.parametrize("how", list(WRITTEN))
def test_a_list_of_names_however_it_was_saved(tmp_path: Path, how: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(WRITTEN[how])
    lines = [without_comment(line) for line in read_text(path).split("\n")]
    assert [line for line in lines if line] == ["00001.png", "00002", "images\\00003.png"]
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for i in range(1, 6):
            (tmp_path / kind / f"{i:05d}.png").touch()
    found = find_samples(Domain(layout="gta5", root=tmp_path, listing=path), "train", labelled=True)
    assert [sample.name for sample in found.samples] == ["00001", "00002", "00003"]
    assert found.left_out().unlisted == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_recipe_however_it_was_saved(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes('base = "gta2cs"\r\ndescription = "Straße"\r\n'.encode(encoding))
    assert load_recipe(str(path)).description == "Straße"


def test_other_encodings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes('description = "Straße"\n'.encode("latin-1"))
    with pytest.raises(UsageError, match=r"mine\.toml: cannot read this recipe \(save it as UTF-8 text"):
        load_recipe(str(path))
    with pytest.raises(UnicodeDecodeError):
        read_text(path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").touch()
    with pytest.raises(FastudaError, match="save it as UTF-8 text"):
        find_samples(Domain(layout="gta5", root=tmp_path, listing=path), "train", labelled=False)
