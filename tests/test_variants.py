"""Variants: a few lines over any recipe, and the recipes of the paper's tables made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastuda.errors import UsageError
from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe, load_recipe, recipe_name, variant_names, variant_text

# Which of CMix, PiCL, ProCL, HTCM and the edge losses are on, as tables 3 and 4 say.
PARTS = {
    "source-only": (False, False, False, False, False),
    "statistics": (False, False, False, False, False),
    "oracle": (False, False, False, False, False),
    "control": (False, False, False, False, False),
    "cmix": (True, False, False, False, False),
    "cmix-picl": (True, True, False, False, False),
    "cmix-procl": (True, False, True, False, False),
    "cmix-htcm": (True, False, False, True, False),
    "cmix-picl-procl": (True, True, True, False, False),
    "cmix-picl-htcm": (True, True, False, True, False),
    "cmix-procl-htcm": (True, False, True, True, False),
    "htcm": (False, False, False, True, False),
    "dsp-hard": (True, False, False, False, False),
    "dsp-soft": (True, False, False, False, False),
    "contrast-hts": (True, True, True, True, False),
    "released": (True, True, True, True, False),
    "edge": (True, True, True, True, True),
    "daformer": (True, False, False, False, False),
    "mic": (True, False, False, False, False),
}


def parts(recipe: Recipe) -> tuple[bool, ...]:
    contrast = recipe.contrast
    return (recipe.mix.enabled, contrast.pixel, contrast.prototype, recipe.htcm.enabled, recipe.edge.enabled)


def test_every_variant_is_tested_here() -> None:
    assert variant_names() == sorted(PARTS)


@pytest.mark.parametrize("base", ["gta2cs", "syn2cs", "demo"])
@pytest.mark.parametrize("variant", PARTS)
def test_a_variant_switches_these_parts(base: str, variant: str) -> None:
    assert parts(load_recipe(f"{base}+{variant}")) == PARTS[variant]


def test_source_only_and_statistics_train_no_adaptation_and_statistics_alone_scores_one() -> None:
    recipes = {name: load_recipe(f"gta2cs+{name}") for name in variant_names()}
    assert [name for name, one in recipes.items() if one.train.iterations == 0] == ["source-only", "statistics"]
    assert [name for name, one in recipes.items() if not one.has_adapted_stage] == ["source-only"]
    target = load_recipe("gta2cs", ["eval.batch_norm=target"], layers=[(["source-only"], ())])
    assert not target.has_adapted_stage


@pytest.mark.parametrize(("base", "opacity"), [("gta2cs", 0.9), ("syn2cs", 0.8)])
def test_dsp_is_hard_or_as_soft_as_its_pair_wants(base: str, opacity: float) -> None:
    hard, soft = load_recipe(f"{base}+dsp-hard").source_mix, load_recipe(f"{base}+dsp-soft").source_mix
    assert (hard.enabled, soft.enabled, hard.opacity, soft.opacity) == (True, True, 1.0, opacity)
    assert ("train" in soft.long_tail) == (base == "gta2cs")


def test_table_6_contrasts_on_hts() -> None:
    assert load_recipe("gta2cs+contrast-hts").contrast.on == "hts"


@pytest.mark.parametrize("pair", ["gta2cs", "syn2cs"])
@pytest.mark.parametrize("variant", ["released", "edge"])
def test_a_preset_with_a_variants_name_is_the_pair_with_that_variant(pair: str, variant: str) -> None:
    preset, composed = load_recipe(f"{pair}-{variant}"), load_recipe(f"{pair}+{variant}")
    assert preset.model_copy(update={"description": composed.description}) == composed


def test_variants_add_up_in_order_and_say_so_in_the_description() -> None:
    both = load_recipe("gta2cs+released+edge")
    assert both.edge.enabled
    assert both.htcm.from_ == "mixed"
    described = [load_recipe("gta2cs").description, "the slips of the authors' released code", "later edge losses"]
    positions = [both.description.index(part) for part in described]
    assert positions == sorted(positions)


def test_a_variant_goes_over_a_file_and_a_file_over_a_variant(tmp_path: Path) -> None:
    (tmp_path / "a+b").mkdir()
    mine = tmp_path / "a+b" / "mine.toml"
    mine.write_text('base = "gta2cs+cmix"\n[method]\ntau = 0.5\n')
    assert load_recipe(str(mine)).method.tau == 0.5
    assert parts(load_recipe(str(mine))) == PARTS["cmix"]
    assert load_recipe(f"{mine}+source-only").train.iterations == 0
    other = tmp_path / "a+b" / "other.toml"
    other.write_text('base = "mine.toml+dsp-soft"\n')
    assert load_recipe(str(other)).source_mix.enabled


def test_settings_win_over_a_variant_but_not_over_a_row_of_a_table() -> None:
    assert load_recipe("gta2cs+source-only", ["train.iterations=7"]).train.iterations == 7
    row = load_recipe("gta2cs", ["train.iterations=7", "seed=1"], layers=[(["source-only"], ["seed=3"])])
    assert (row.train.iterations, row.seed) == (0, 3)


def test_a_variant_of_a_variant_reads_back_as_itself(tmp_path: Path) -> None:
    recipe = load_recipe("syn2cs+released+contrast-hts")
    path = tmp_path / "resolved.toml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize("base", ["gta2cs-released", "gta2cs-edge", "gta2cs-fast", "syn2cs-released", "syn2cs-edge"])
@pytest.mark.parametrize("variant", [name for name in PARTS if name not in ("contrast-hts", "released", "edge")])
def test_a_row_says_all_its_parts_whatever_the_base_has(base: str, variant: str) -> None:
    assert parts(load_recipe(f"{base}+{variant}")) == PARTS[variant]
    assert load_recipe(f"{base}+dsp-soft+{variant}").source_mix.enabled == variant.startswith("dsp")
    switched_off = load_recipe(base, ["htcm.enabled=false", "edge.enabled=false"], layers=[([variant], ())])
    assert parts(switched_off) == PARTS[variant]


def test_an_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"no variant is called 'cmix-pcl'; did you mean cmix-picl\?; there are cmix, "
    ):
        load_recipe("gta2cs+cmix-pcl")
    with pytest.raises(UsageError, match="no variant is called ''"):
        load_recipe("gta2cs+")


@pytest.mark.parametrize(
    ("given", "name"),
    [("gta2cs", "gta2cs"), ("gta2cs+edge", "gta2cs+edge"), ("a+b/mine.toml", "mine"), ("mine.toml+cmix", "mine+cmix")],
)
def test_what_a_recipe_is_called(given: str, name: str) -> None:
    assert recipe_name(given) == name


@pytest.mark.parametrize("variant", variant_names())
def test_a_variant_says_what_it_is_in_its_first_line(variant: str) -> None:
    assert variant_text(variant).startswith('description = "')


def test_the_variants_of_today_are_the_published_trainings() -> None:
    daformer, mic = load_recipe("gta2cs+daformer"), load_recipe("gta2cs+mic")
    assert daformer.parts == ["mix", "quality", "feature_distance"]
    assert mic.parts == ["mix", "quality", "feature_distance", "masked"]
    assert mic.model_copy(update={"terms": daformer.terms, "description": daformer.description}) == daformer
    assert (daformer.method.teacher, daformer.method.ema_decay, daformer.method.ema_rises) == ("ema", 0.999, True)
    assert (daformer.quality.tau, daformer.quality.per, daformer.method.mixed_weight) == (0.968, "batch", 1.0)
    assert (daformer.sampling.rare_classes, daformer.sampling.temperature, daformer.sampling.min_pixels) == (
        *(True, 0.01, 3000),
    )
    masked = mic.terms["masked"].model_dump()
    assert masked == {"weight": 1.0, "ratio": 0.7, "block": 64}
