"""Recipes of strangers: each is read, or refused in a few lines that name it, at once; `train` begins nothing then."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.images import data_set
from faults.recipe_draft import LEAVES, Mutant
from faults.recipes import KINDS, mutated, refusal
from typer.testing import CliRunner

from fastuda.data.reading.globs import find, parse
from fastuda.data.reading.samples import find_samples
from fastuda.errors import FastudaError, UsageError
from fastuda.files.toml_text import FILE_LIMIT, parse_toml, read_toml
from fastuda.recipe.file import dump_recipe, load_recipe, recipe_name
from fastuda_cli.main import app

pytestmark = pytest.mark.usefixtures("no_hang")
SECONDS = 5


def required_short(said: str) -> None:
    """One line, or one for the recipe and one for each field of it that is wrong."""
    assert len(said) < 2000
    head, *fields = said.split("\n")
    assert all(line.isprintable() for line in (head, *fields))
    assert all(line.startswith("  ") and head.endswith(":") for line in fields)


def first_steps(mutant: Mutant, folder: Path) -> None:
    """What `train` does with a valid recipe before it draws, packs or trains: write it down, list its data sets."""
    recipe = load_recipe(mutant.arguments[0], mutant.settings)
    again = folder / "again.toml"
    again.write_text(dump_recipe(recipe), "utf-8")
    assert load_recipe(str(again)) == recipe
    assert recipe_name(mutant.arguments[0])
    for domain in (recipe.source, recipe.target):
        domain = domain if domain.root is not None else domain.model_copy(update={"root": folder / "set"})
        for split in ("train", "val"):
            said = ""
            try:
                find_samples(domain, split, labelled=True)
            except FastudaError as error:
                said = str(error)
            assert len(said) < 2000
            assert said.isprintable()


@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_recipe_is_read_or_refused_at_once(kind: str, tmp_path: Path) -> None:
    data_set([], tmp_path / "set")
    for seed in range(KINDS.index(kind), 5 * len(KINDS), len(KINDS)):
        mutant = mutated(seed, tmp_path)
        start = time.monotonic()
        said = refusal(mutant)
        if said is None:
            first_steps(mutant, tmp_path)
        else:
            required_short(said)
            assert ".toml" in said or "--set" in said or "no variant is called" in said
        assert time.monotonic() - start < SECONDS
        assert said is None or kind not in ("sound", "line ends")
        assert said is not None or kind not in ("NUL", "nested", "dotted", "endless iterations", "negative", "large")


def test_the_same_seed_makes_the_same_recipe(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for seed in range(len(KINDS)):
        one, other = (mutated(seed, tmp_path / name) for name in ("a", "b"))
        assert one.kind == other.kind
        assert str(one.arguments).replace("/a/", "/b/") == str(other.arguments)
        if one.path.is_file() and one.kind not in ("place", "listing", "base is itself", "odd base"):
            assert one.path.read_bytes() == other.path.read_bytes()


def test_the_mutations_reach_every_part_of_a_recipe() -> None:
    assert len(LEAVES) > 120
    assert {name.partition(".")[0] for name in LEAVES} >= {"seed", "source", "warmup", "htcm", "runtime", "demo"}


def trained(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["train", *arguments])
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def test_train_refuses_them_and_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tried = 0
    for seed in range(len(KINDS), 2 * len(KINDS)):
        mutant = mutated(seed, tmp_path)
        if mutant.valid:
            continue
        assert not mutant.tiny
        code, said = trained(*mutant.arguments, "--run", str(tmp_path / "run"), "--device", "cpu")
        assert code == 2, said
        assert said.startswith(("usage: ", "Usage: "))
        assert all(line.isprintable() for line in said.split("\n"))
        assert not (tmp_path / "run").exists()
        tried += 1
    assert tried > len(KINDS) // 2


BAD: dict[str, tuple[str, str]] = {
    "NUL": ('description = "a\\u0000b"', "description' holds a NUL character"),
    "NUL in a key": ('"a\\u0000b" = 1', "holds a NUL character"),
    "NUL in an array": ('[source]\nlayout = "folder"\nimages = ["a\\u0000"]', "holds a NUL character"),
    "NUL as it is": ('description = "a\0b"', "not valid TOML"),
    "5,000 digits": ("seed = " + "9" * 5000, "Exceeds the limit"),
    "5,000 digits below zero": ("[train]\niterations = -" + "9" * 5000, "Exceeds the limit"),
    "10**20": ("[train]\niterations = 1" + "0" * 20, "train.iterations: Input should be less than or equal to"),
    "10**20 of the warm-up": ("[warmup]\niterations = 1" + "0" * 20, "warmup.iterations: Input should be less than"),
    "10**20 between evaluations": ("[train]\nevaluate_every = 1" + "0" * 20, "train.evaluate_every: Input should be"),
    "2**63": ("[train.optimizer]\nramp_up = 9223372036854775808", "train.optimizer.ramp_up: Input should be"),
    "arrays in arrays": ("x = " + "[" * 10**5 + "]" * 10**5, "too deep"),
    "20 arrays": ("x = " + "[" * 20 + "]" * 20, "more than 16 tables or arrays deep"),
    "tables in tables": ("x = " + "{a=" * 10**4 + "1" + "}" * 10**4, "too deep"),
    "a key of 20 parts": (".".join("a" * 20) + " = 1", "a key has more than 16 parts"),
    "a key of 100,000 parts": (".".join("a" * 10**5) + " = 1", "a key has more than 16 parts"),
    "a table of 20 parts": ('["' + '"."'.join("a" * 20) + '"]', "a key has more than 16 parts"),
    "a home": ('[source]\nlayout = "gta5"\nroot = "~nosuchuser/x"', "source.root: ~nosuchuser/x: this machine knows"),
    "a home of a list": ('[target]\nlisting = "~nosuchuser/x"', "target.listing: ~nosuchuser/x: this machine knows"),
    "a home of the cache": ('[data]\ncache = "~nosuchuser"', "data.cache: ~nosuchuser: this machine knows"),
    "not a number": ("[method]\ntau = nan", "method.tau: Input should be"),
    "infinite": ("[views]\nblur_radius = inf", "views.blur_radius: Input should be"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_what_was_reported_is_named(what: str, tmp_path: Path) -> None:
    text, words = BAD[what]
    path = tmp_path / "mine.toml"
    path.write_text(f'base = "demo"\n{text}\n')
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path))
    required_short(str(caught.value))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    code, said = trained(str(path), "--run", str(tmp_path / "run"))
    assert code == 2
    assert words in said


SET = {
    "10**20": ("train.iterations=10**20", "train.iterations: Input should be a valid integer"),
    "10^20 written out": ("train.iterations=1" + "0" * 20, "train.iterations: Input should be less than"),
    "5,000 digits": ("seed=" + "9" * 5000, "Exceeds the limit"),
    "arrays in arrays": ("seed=" + "[" * 30_000, "too deep"),
    "a home": ("source.root=~nosuchuser", "source.root: ~nosuchuser: this machine knows"),
    "many sections": (".".join("a" * 1000) + "=1", "no field lies in 999 sections"),
    "NUL": ("description=a\0b", "holds a NUL character"),
    "a million letters": ("x" * 10**6 + "=1", "no such field"),
    "below a value": ("seed.x=1", "seed"),
}


@pytest.mark.parametrize("what", list(SET))
def test_what_was_reported_is_named_as_a_setting_too(what: str) -> None:
    setting, words = SET[what]
    with pytest.raises(UsageError) as caught:
        load_recipe("demo", [setting])
    required_short(str(caught.value))
    assert words in str(caught.value)


def nothing(_: Path) -> None: ...


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a pipe"),
    "socket": (lambda path: os.mknod(path, 0o140600), "it is a socket"),
    "folder": (Path.mkdir, "it is a folder"),
    "circle": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "nothing": (nothing, "No such file"),
    "large": (lambda path: path.write_bytes(b"#" * (FILE_LIMIT + 1)), "larger than 1 MiB"),
    "terabyte": (lambda path: path.touch() or os.truncate(path, 1 << 40), "larger than 1 MiB"),
    "not UTF-8": (lambda path: path.write_bytes(b"a = '\xff'"), "save it as UTF-8 text"),
    "half a UTF-16": (lambda path: path.write_bytes(b"\xff\xfea"), "save it as UTF-8 text"),
}


@pytest.mark.parametrize("what", list(FILES))
@pytest.mark.parametrize("is_base", [False, True])
def test_what_is_no_recipes_file_makes_nobody_wait(what: str, is_base: bool, tmp_path: Path) -> None:
    make, words = FILES[what]
    make(tmp_path / "mine.toml")
    path = tmp_path / "mine.toml"
    if is_base:
        path = tmp_path / "over.toml"
        path.write_text('base = "mine.toml"\n')
    with pytest.raises(UsageError, match=words) as caught:
        load_recipe(str(path))
    assert str(tmp_path / "mine.toml") in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "base", ["demmo", "", "demo+nothing", "demo\n", "x" * 10**5, "~nosuchuser/x.toml", "demo" + "+cmix" * 40]
)
def test_a_base_that_is_none_is_said_of_the_recipe_that_names_it(base: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"base = {json.dumps(base)}\n")
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path))
    assert str(caught.value).startswith(f"{path}: base: ")
    required_short(str(caught.value))


@pytest.mark.parametrize(
    "text",
    ["9" * 10**6, "a" * 10**6, "-" * 10**6, '"' * 10**6, "'" * 10**6, '"."' * 10**5, "a." * 10**5, "a \t" * 10**5,
    "a" + " " * 10**6, ".a" * 10**5],
    ids=lambda text: text[:3],
)  # fmt: skip
def test_a_million_characters_are_refused_in_a_moment(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"mine\.toml: not valid TOML"):
        parse_toml(text, "mine.toml")
    assert time.monotonic() - start < SECONDS


def test_keys_of_sixteen_parts_and_texts_with_dots_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'{".".join("a" * 15)} = 1\nb = "{"x" * 10**5}"\nc = "some/path.with.dots/1.2.3"\n')
    found = read_toml(path, "table")
    assert found["b"] == "x" * 10**5
    assert found["c"] == "some/path.with.dots/1.2.3"


def test_a_hundred_wrong_fields_are_counted_rather_than_listed(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "demo"\n' + "".join(f"[section{number}]\n" for number in range(100)))
    with pytest.raises(UsageError) as caught:
        load_recipe(str(path))
    required_short(str(caught.value))
    *shown, last = str(caught.value).split("\n")[1:]
    assert last == f"  … and {100 - len(shown)} more"
    assert len(shown) >= 5


GLOBS = {
    "": "names no file", "//": "names no file", "a\0b": "NUL", "x" * 5000: "more than 4,096 characters",
    "{a,b}" * 10: "too many braces",
    "*" + "/*" * 16: "more than 16 wildcards", "**/**/**/*": "more than 2 times **",
    "*a" * 5: "more than 4 times * in one name",
    "[z-a]*": "mean no set of characters", "~nosuchuser/*": "no such user's home",
}  # fmt: skip


@pytest.mark.parametrize("pattern", list(GLOBS))
def test_globs_that_cannot_be_looked_for_are_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match=re.escape(GLOBS[pattern])) as caught:
        parse(pattern)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "pattern", ["*a*a*a*b", "**/*a*b.png", "{a,b}{a,b}{a,b}*.png", "?" * 16 + ".png", "*/" * 15 + "*"]
)
def test_globs_at_the_bounds_end_in_a_moment(pattern: str, tmp_path: Path) -> None:
    for name in ("a" * 200, "ab" * 100, "x" * 16):
        (tmp_path / f"{name}.png").touch()
    start = time.monotonic()
    find(tmp_path, parse(pattern))
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("what", ["pipe", "folder", "circle", "device", "nothing", "terabyte", "not UTF-8"])
def test_a_list_of_names_that_is_none_makes_nobody_wait(what: str, tmp_path: Path) -> None:
    data_set([], tmp_path / "set")
    path = tmp_path / "list.txt"
    FILES[what][0](path)
    recipe = load_recipe(str(tmp_path / "set/recipe.toml"), [f"source.listing={path}"])
    with pytest.raises(FastudaError, match="cannot read this list of names") as caught:
        find_samples(recipe.source.model_copy(update={"root": tmp_path / "set"}), "train", labelled=True)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()
