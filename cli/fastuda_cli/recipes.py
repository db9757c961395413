"""`fastuda recipes`: what exists, and what each holds."""

from __future__ import annotations

import tomllib
from typing import Annotated

import typer

from fastuda_cli.console import console, reported, say


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe, or RECIPE+VARIANT, whole, as TOML.")] = None,
    changes: Annotated[bool, typer.Option("--changes", help="Only what the recipe's own file says.")] = False,
) -> None:
    """List the recipes, or show one with every field resolved and what it means."""
    with reported():
        from rich.syntax import Syntax
        from rich.table import Table

        from fastuda.errors import UsageError
        from fastuda.recipe.file import load_recipe, preset_names, preset_text, variant_names, variant_text
        from fastuda.recipe.text import explained

        if name is not None:
            if name in variant_names() and not changes:
                raise UsageError(f"{name} is a variant, for any recipe: RECIPE+{name}; --changes shows its lines")
            if changes:
                text = "\n".join(
                    variant_text(one) if one in variant_names() else preset_text(one) for one in name.split("+")
                )
            else:
                text = explained(load_recipe(name))
            if console.is_terminal:
                console.print(Syntax(text, "toml", background_color="default", word_wrap=True))
            else:
                say(text.rstrip("\n"))  # a file of it is a recipe: no line is broken
            return
        table = Table("recipe", "what it is", "source → target", "classes", "iterations")
        for preset in preset_names():
            recipe = load_recipe(preset)
            domains = f"{recipe.source.layout} → {recipe.target.layout}"
            count = f"{recipe.warmup.iterations} + {recipe.train.iterations}"
            table.add_row(preset, recipe.description, domains, str(len(recipe.classes.build())), count)
        console.print(table)
        variants = Table("variant", "RECIPE+variant is the recipe with")
        for variant in variant_names():
            variants.add_row(variant, tomllib.loads(variant_text(variant))["description"])
        console.print(variants)
        say("`fastuda recipes NAME` shows every field; --set section.field=value changes one.")
