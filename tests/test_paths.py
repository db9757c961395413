"""One way to read a user's paths: `~`, relative paths and links, in options, recipe fields and the environment."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from pydantic import BaseModel
from typer.models import ParameterInfo

from fastuda.data.cache import cache_folder
from fastuda.data.reading.samples import data_root
from fastuda.errors import UsageError
from fastuda.files.paths import user_path
from fastuda.recipe import Data, Domain, Recipe
from fastuda.recipe.file import load_recipe
from fastuda_cli import options
from fastuda_cli.main import app


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data/images").mkdir(parents=True)
    return tmp_path


def callbacks(group: typer.Typer) -> Iterator[Any]:
    yield from (command.callback for command in group.registered_commands)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from callbacks(inner.typer_instance)


def test_every_path_of_every_command_is_read_by_the_one_function() -> None:
    seen = 0
    for callback in callbacks(app):
        hints = get_type_hints(callback, include_extras=True)
        for name in inspect.signature(callback).parameters:
            hint = hints[name]
            if get_origin(hint) is not Annotated or "Path" not in str(get_args(hint)[0]):
                continue
            if "tuple" in str(get_args(hint)[0]):
                continue  # LAYOUT DIR, which the command reads by the function itself
            info = next(one for one in get_args(hint)[1:] if isinstance(one, ParameterInfo))
            assert info.parser is options.path, (callback, name)
            seen += 1
    assert seen > 30


@pytest.mark.parametrize("name", ["Straße 日本 😀", "stra\udcdfe", "a'b\"c\\d", "del\x7f\x01"])
def test_a_data_folder_may_have_any_name(name: str, tmp_path: Path) -> None:
    recipe = load_recipe("demo", options.settings(None, tmp_path / name, None))
    assert recipe.source.root == tmp_path / name


def test_every_path_of_a_recipe_is_made_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "data")

    def paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
        for name, field in section.model_fields.items():
            if "Path" in str(field.annotation):
                yield prefix + name
            for inner in (field.annotation, *get_args(field.annotation)):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    yield from paths(inner, f"{prefix}{name}.")

    found = sorted(set(paths(Recipe)))
    of_domains = [f"{domain}.{name}" for domain in ("source", "target") for name in ("labelled", "listing", "root")]
    assert found == ["data.cache", *of_domains]
    for field in found:
        if field == "source.labelled":
            continue  # which no recipe may have
        for text, expected in (("~/x", home / "x"), ("x", home / "data/x"), ("../x", home / "data/../x")):
            value: Any = load_recipe("gta2cs", [f"{field}={text}"])
            for part in field.split("."):
                value = getattr(value, part)
            assert value == expected


def test_a_home_that_is_nobodys_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no such user's home"):
        user_path("~nobody-of-that-name/x")
    with pytest.raises(UsageError, match=r"source\.root: .*no such user's home"):
        load_recipe("gta2cs", ["source.root=~nobody-of-that-name/x"])


def test_the_cache_and_roots_through_links(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTUDA_CACHE", "~/cache")
    assert cache_folder(Data()) == home / "cache"
    (home / "link").symlink_to("data")
    assert data_root(Domain(layout="gta5", root=Path("~/link"))) == (home / "data").resolve()


def test_a_recipe_and_its_base_may_begin_at_home(home: Path) -> None:
    (home / "base.toml").write_text('base = "gta2cs"\nseed = 7\n')
    (home / "data/mine.toml").write_text('base = "~/base.toml"\n')
    assert load_recipe("~/data/mine.toml").seed == 7
