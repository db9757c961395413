"""Names and values of users, shown: nothing acts on a terminal, nothing is lost, nothing is endless."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastuda.printable import brief, is_plain, on_one_line, printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("stra\udcdfe", "stra\\xdfe"), ("\x1b[2J", "\\x1b[2J"), ("a\nb\tc", "a\nb\tc"), ("\r", "\\r"),
        ("\u202e", "\\u202e"), ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("\ud800", "\\ud800"), ("\u2028\u2029", "\\u2028\\u2029"), ("Straße 日本 😀", "Straße 日本 😀"),
        ("\x0b\x0c\x85", "\\x0b\\x0c\\x85"),
    ],
)  # fmt: skip
def test_what_acts_is_an_escape_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert shown.encode()


def test_on_one_line_has_no_line_ends() -> None:
    assert on_one_line(Path("a\nb\tc/\udcff")) == "a\\nb\\tc/\\xff"
    assert on_one_line("x" * 100, 10) == "x" * 10 + "… (100 characters)"


def test_every_character_below_the_surrogates_can_be_shown_on_one_line() -> None:
    for number in range(0x3000):
        assert "\n" not in on_one_line(chr(number))
        assert not set(on_one_line(chr(number))) & {"\x1b", "\r", "\x9b", "\u2028", "\u202e", "\x7f"}


def test_brief_shows_any_value_shortly() -> None:
    nested: list[object] = []
    for _ in range(10**5):
        nested = [nested]
    assert brief("a\n\x1b") == "'a\\n\\x1b'"
    assert brief(10**5000) == "a value of type int that is too large to show"
    assert brief(nested) == "a value of type list that is too large to show"
    assert len(brief("x" * 10**6)) < 120
    while nested:  # by hand: Python takes such lists apart by recursion
        nested = nested.pop()  # type: ignore[assignment]


def test_plain_names_and_shortened_texts() -> None:
    assert is_plain("backbone.conv1.weight")
    assert not is_plain("a\nb")
    assert not is_plain("x" * 501)
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "abc… (4 characters)"
