"""Recipes as `fastuda recipes NAME` shows them: every field with its meaning, and still a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe, load_recipe, preset_names
from fastuda.recipe.text import explained


@pytest.mark.parametrize("name", [*preset_names(), "gta2cs-edge+released"])
def test_what_is_shown_reads_back_as_the_recipe(name: str, tmp_path: Path) -> None:
    path, recipe = tmp_path / "shown.toml", load_recipe(name)
    path.write_text(explained(recipe), "utf-8")
    assert load_recipe(str(path)) == recipe


def test_nothing_but_comments_is_added_and_each_says_what_comes_next() -> None:
    recipe = load_recipe("gta2cs")
    lines = explained(recipe).splitlines()
    assert [line for line in lines if not line.startswith("# ")] == dump_recipe(recipe).splitlines()
    said = "# Confidence above which a pseudo-label is confident, where `confident` is `above-tau`."
    assert lines[lines.index("tau = 0.95") - 1] == said
    assert lines[lines.index("[warmup.optimizer]") - 1] == "# The stage's own optimiser."
    assert "(protocol row 18)" in lines[lines.index("aspp = [") - 1]
    assert max(map(len, lines)) <= 112


def test_a_field_with_an_alias_and_a_mapping_of_the_users_own() -> None:
    settings = ['target={layout="folder", images="a/*.png", ids={0="road"}}']
    lines = explained(load_recipe("gta2cs", settings)).splitlines()
    assert lines[lines.index('from = "target"') - 1].startswith("# Whose prediction gives")
    assert lines[lines.index('0 = "road"') - 1] == "[target.ids]"


def test_the_printed_rate_and_the_authors_own_start_are_told() -> None:
    text = " ".join(line.removeprefix("# ") for line in explained(load_recipe("gta2cs-released")).splitlines())
    assert "the rate that the paper prints is 2.5e-4" in text
    assert "DeepLab_resnet_pretrained_init-f81d91e8.pth: give that file, as it is" in text
    assert "model.weights" in load_recipe("gta2cs-released").description


def test_every_field_of_every_table_has_a_meaning() -> None:
    assert [name for name, field in Recipe.model_fields.items() if not field.description] == []
    for name in Recipe.model_fields:
        section = getattr(load_recipe("demo"), name)
        for own, field in getattr(type(section), "model_fields", {}).items():
            assert field.description, f"{name}.{own}"
