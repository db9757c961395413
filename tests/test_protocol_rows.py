"""Citations of the protocol: every row that code, tests and pages name stands in the table of PROTOCOL.md."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROTOCOL = ROOT / "fastuda/method/PROTOCOL.md"
TABLE = {int(number) for number in re.findall(r"^\| (\d+) \|", PROTOCOL.read_text(), re.M)}
_NUMBERS = r"\d+(?:(?:[-–]|, | and | to )\d+)*"
_ROWS = re.compile(rf"\brows? ({_NUMBERS})", re.I)
_PROTOCOL_ROWS = re.compile(rf"\bprotocol rows? ({_NUMBERS})", re.I)
_CITATION = re.compile(r"\(protocol\b(?: rows?)?(?: |: )(?!rows?\b)(\S+)", re.I)
"""What a citation in brackets names: a row's number, or what is none."""


def flowing(text: str) -> str:
    """The text with each run of spaces, line ends and comment signs as one space."""
    return re.sub(r"[\s#]+", " ", text)


def rows_cited(text: str, *, protocol_alone: bool) -> set[int]:
    """Numbers of the rows that a text names, those between the ends of a range too.

    `protocol_alone`: only those called the protocol's; a page has other tables besides.
    """
    found: set[int] = set()
    for numbers in (_PROTOCOL_ROWS if protocol_alone else _ROWS).findall(flowing(text)):
        for part in re.split(r", | and ", numbers):
            first, *rest = map(int, re.split(r"[-–]| to ", part))
            found.update(range(first, (rest or [first])[-1] + 1))
    return found


def not_rows(text: str) -> list[str]:
    """What stands in a citation of the protocol where a row's number belongs."""
    return [word for word in _CITATION.findall(flowing(text)) if not word[0].isdigit()]


def files() -> list[str]:
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.toml", "*.md"]
    tracked = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [name for name in tracked if name != Path(__file__).relative_to(ROOT).as_posix()]


def test_the_table_is_numbered_through() -> None:
    assert sorted(TABLE) == list(range(1, len(TABLE) + 1))


def test_every_row_cited_is_in_the_table() -> None:
    cited = {}
    for name in files():
        is_page = name.endswith(".md") and ROOT / name != PROTOCOL
        cited[name] = rows_cited((ROOT / name).read_text(), protocol_alone=is_page)
    assert {name: rows - TABLE for name, rows in cited.items() if rows - TABLE} == {}
    assert set().union(*cited.values()) == TABLE, "and no row is forgotten"


def test_the_protocol_is_cited_by_row_alone() -> None:
    found = {name: not_rows((ROOT / name).read_text()) for name in files() if name.endswith((".py", ".toml"))}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("(protocol row 28)", {28}),
        ("(paper eq. 4; protocol\n    rows 16-19, 0)", {0, 16, 17, 18, 19}),
        ("# Rows 12 to 14: …", {12, 13, 14}),
        ("rows 2, 3 and 99", {2, 3, 99}),
        ("arrows 3 and row by row", set()),
    ],
)
def test_what_is_found_in_a_text(text: str, rows: set[int]) -> None:
    assert rows_cited(text, protocol_alone=False) == rows


def test_only_the_protocols_rows_count_on_a_page() -> None:
    assert rows_cited("Rows 1 of `p`, and protocol row 28", protocol_alone=True) == {28}


def test_a_citation_of_no_row_is_found() -> None:
    assert not_rows('(protocol: On-disk) (protocol rows "A") (protocol row 3, 4) (the protocol says)') == [
        "On-disk)",
        '"A")',
    ]
