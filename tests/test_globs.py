"""Globs: a suffix is no part of a name, braces and lists, links followed, and names by what wildcards stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastuda.data.reading.globs import find, parse


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path, *patterns: str, blind: bool = False) -> dict[str, str]:
    return {str(one.path.relative_to(root)): one.name for one in find(root, parse(patterns), blind=blind)}


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["d/*.{jpg,png}"], ["1.jpg", "2.JPG", "3.png"]),
        (["d/*{.jpg,.png}"], ["1.jpg", "2.JPG", "3.png"]),
        (["d/*.jpg", "d/*.png"], ["1.jpg", "2.JPG", "3.png"]),
        (["d/*.jpg"], ["1.jpg", "2.JPG"]),
        (["d/*.[jp][pn]g"], ["1.jpg", "2.JPG", "3.png"]),
        (["d/*.*"], ["1.jpg", "2.JPG", "3.png", "4.jpeg"]),
        (["d/*"], ["1.jpg", "2.JPG", "3.png", "4.jpeg"]),
        (["d/*.jp*"], ["1.jpg", "2.JPG", "4.jpeg"]),
        (["./d//*.txt"], ["5.txt"]),
    ],
)
def test_a_suffix_is_no_part_of_a_name(tmp_path: Path, patterns: list[str], found: list[str]) -> None:
    touch(tmp_path, "d/1.jpg", "d/2.JPG", "d/3.png", "d/4.jpeg", "d/5.txt", "d/.6.jpg", "d/7", "other/8.jpg")
    (tmp_path / "d/folder.jpg").mkdir()
    assert names(tmp_path, *patterns) == {f"d/{file}": file[0] for file in found}


def test_dots_in_names_stay_names(tmp_path: Path) -> None:
    touch(tmp_path, "d/a.b.png", "d/v1.2/c.png", "d/x.jpg.png")
    assert names(tmp_path, "d/*.png") == {"d/a.b.png": "a.b", "d/x.jpg.png": "x.jpg"}
    assert names(tmp_path, "d/*.jpg.png") == {"d/x.jpg.png": "x"}
    assert names(tmp_path, "d/*/*") == {"d/v1.2/c.png": "v1.2/c"}
    assert names(tmp_path, "d/v1.2/*") == {"d/v1.2/c.png": "c"}


def test_braces_that_are_no_suffix_are_wildcards_of_few_values(tmp_path: Path) -> None:
    touch(tmp_path, "fog/rgb/1.png", "rain/rgb/1.png", "snow/rgb/1.png")
    assert names(tmp_path, "{fog,rain}/rgb/*.{png,jpg}") == {"fog/rgb/1.png": "fog/1", "rain/rgb/1.png": "rain/1"}
    assert [glob.num_wildcards for glob in parse("{fog,rain}/rgb/*.{png,jpg}")] == [2] * 4


def test_linked_folders_are_followed_and_a_link_back_up_ends(tmp_path: Path) -> None:
    touch(tmp_path, "real/deep/1.png", "root/2.png")
    (tmp_path / "root/linked").symlink_to(tmp_path / "real")
    (tmp_path / "real/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/3.png").symlink_to(tmp_path / "real/deep/1.png")
    for root in (tmp_path / "root", tmp_path / "root/../root"):
        found = [one.name for one in find(root, parse("**/*.png"))]
        assert found == ["2", "3", "linked/deep/1"]
    assert names(tmp_path / "root", "*/deep/*.png") == {"linked/deep/1.png": "linked/1"}


def test_case_is_ignored_on_request_alone(tmp_path: Path) -> None:
    touch(tmp_path, "Images/A.PNG", "Images/b.png")
    assert names(tmp_path, "images/*.png") == {}
    assert names(tmp_path, "images/*.png", blind=True) == {"Images/A.PNG": "A", "Images/b.png": "b"}
    assert names(tmp_path, "Images/[a-z].png") == {"Images/b.png": "b"}
