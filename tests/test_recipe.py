"""Recipes on disk: inheritance, settings, and messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipe_fields import fields

from fastuda.classes import CITYSCAPES_13, CITYSCAPES_16
from fastuda.errors import UsageError
from fastuda.recipe.file import dump_recipe, load_recipe, preset_names


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def written(text: str, name: str = "mine.toml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return written


def refused(name_or_path: str, *settings: str) -> str:
    """The message with which a recipe is refused."""
    with pytest.raises(UsageError) as caught:
        load_recipe(name_or_path, settings)
    return str(caught.value)


@pytest.mark.parametrize("preset", preset_names())
def test_a_resolved_recipe_reads_back_as_itself(preset: str, write: Callable[..., str]) -> None:
    recipe = load_recipe(preset, ["source.root=/data/some where", "data.cache=/fast disk", "seed=7"])
    assert load_recipe(write(dump_recipe(recipe))) == recipe


def test_a_resolved_recipe_of_own_classes_and_ids_reads_back_as_itself(write: Callable[..., str]) -> None:
    recipe = load_recipe(write(OWN))
    again = load_recipe(write(dump_recipe(recipe), "again.toml"))
    assert again == recipe
    assert again.source.ids == {0: "water", 7: "ignore", 200: "land"}
    assert again.classes.build().names == ("water", "land")


OWN = """
[classes]
names = ["water", "land"]
palette = [[0, 0, 255], [0, 255, 0]]
[source]
layout = "folder"
images = "sim/*.png"
labels = "sim_labels/*.png"
ids = { 0 = "water", 200 = "land", 7 = "ignore" }
[target]
layout = "folder"
images = "real/*.jpg"
val_images = "val/*.jpg"
val_labels = "val_labels/*.png"
"""


def test_a_derived_recipe_changes_what_it_says_and_keeps_the_rest(write: Callable[..., str]) -> None:
    path = write('base = "gta2cs-released"\n[htcm]\nsamples = "all"\n[method]\ntau = 0.5\n')
    found = load_recipe(path)
    assert (found.htcm.samples, found.method.tau) == ("all", 0.5)
    assert (found.htcm.from_, found.mix.min_class, found.model.aspp) == ("mixed", 5, (6, 12))


def test_a_base_file_is_looked_for_beside_the_recipe_not_in_the_working_folder(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write('base = "gta2cs"\nseed = 3\n', "shared/common.toml")
    path = write('base = "../shared/common.toml"\n[method]\ntau = 0.9\n', "mine/run.toml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert (load_recipe(path).seed, load_recipe(path).method.tau) == (3, 0.9)
    assert load_recipe("../mine/run.toml").seed == 3


@pytest.mark.parametrize("base", ["{}/common.toml", "common.toml"])
def test_a_base_file_may_be_named_absolutely_or_relatively(
    base: str, write: Callable[..., str], tmp_path: Path
) -> None:
    write('base = "gta2cs"\nseed = 3\n', "common.toml")
    assert load_recipe(write(f'base = "{base.format(tmp_path)}"\n', "run.toml")).seed == 3


def test_a_recipe_that_is_its_own_base_is_refused(write: Callable[..., str], tmp_path: Path) -> None:
    write('base = "b.toml"\n', "a.toml")
    write('base = "a.toml"\n', "b.toml")
    message = refused(str(tmp_path / "a.toml"))
    assert "is its own base" in message
    assert message.count("a.toml") >= 2
    assert "b.toml" in message


def test_a_circle_through_another_folder_is_refused_too(write: Callable[..., str], tmp_path: Path) -> None:
    path = write(f'base = "../{tmp_path.name}/a.toml"\n', "a.toml")
    assert "is its own base" in refused(path)


@pytest.mark.parametrize("section", ["classes", "source", "method"])
def test_a_value_where_a_section_belongs_is_refused(section: str, write: Callable[..., str]) -> None:
    assert f"{section}: " in refused(write(f'base = "syn2cs"\n{section} = 3\n'))


def test_own_names_leave_the_bases_colours_behind(write: Callable[..., str]) -> None:
    write('base = "gta2cs"\n[classes]\nnames = ["a"]\npalette = [[1, 2, 3]]\n', "base.toml")
    found = load_recipe(write('base = "base.toml"\n[classes]\nnames = ["a", "road"]\n'))
    assert found.classes.build().palette[1] == (128, 64, 128)


def test_a_base_that_is_no_name_is_refused(write: Callable[..., str]) -> None:
    assert "base must be a recipe's name or path, not 3" in refused(write("base = 3\n"))


def test_another_layout_inherits_nothing_of_the_bases_domain(write: Callable[..., str]) -> None:
    write('base = "gta2cs"\n[source]\nroot = "/gta"\nlisting = "/gta/list.txt"\n', "base.toml")
    found = load_recipe(write('base = "base.toml"\n[source]\nlayout = "synthia"\n'))
    assert (found.source.layout, found.source.root, found.source.listing) == ("synthia", None, None)


def test_ids_and_subsets_are_replaced_whole(write: Callable[..., str]) -> None:
    write(OWN + '[eval.subsets]\nwet = ["water"]\n', "base.toml")
    path = write('base = "base.toml"\n[source.ids]\n1 = "land"\n[eval.subsets]\ndry = ["land"]\n')
    found = load_recipe(path)
    assert found.source.ids == {1: "land"}
    assert found.eval.subsets == {"dry": ("land",)}


def test_own_names_take_the_place_of_the_bases_preset(write: Callable[..., str]) -> None:
    found = load_recipe(write('base = "syn2cs"\n[classes]\nnames = ["road", "car"]\n[eval]\nsubsets = {}\n'))
    assert found.classes.build().names == ("road", "car")
    assert found.classes.preset is None


def test_a_preset_takes_the_place_of_the_bases_own_names(write: Callable[..., str]) -> None:
    write('base = "gta2cs"\n[classes]\nnames = ["road"]\npalette = [[1, 2, 3]]\n', "base.toml")
    found = load_recipe(write('base = "base.toml"\n[classes]\npreset = "cityscapes16"\n'))
    assert found.classes.build().names == CITYSCAPES_16


def test_classes_are_merged_in_both_domains_and_replaced_whole_or_with_the_names(write: Callable[..., str]) -> None:
    own = 'base = "gta2cs"\n[classes]\nnames = ["road", "car"]\n[classes.merged]\ncar = ["bus", "truck"]\n'
    assert load_recipe(write(own, "base.toml")).classes.build().counted["bus"] == "car"
    derived = write('base = "base.toml"\n[classes.merged]\nroad = ["sidewalk"]\n')
    assert load_recipe(derived).classes.merged == {"road": ("sidewalk",)}
    assert load_recipe(write('base = "base.toml"\n[classes]\nnames = ["sky"]\n')).classes.merged == {}
    assert load_recipe(str(Path(derived).parent / "base.toml"), ["classes.preset=cityscapes13"]).classes.merged == {}
    assert load_recipe("demo", ["classes.merged={}"]).classes.merged == {}
    assert load_recipe("demo", ['classes.names=["road", "sky"]', "source_mix.long_tail=[]"]).classes.merged == {}


def test_settings_of_one_class_list_hold_in_any_order() -> None:
    merged, names = 'classes.merged={vegetation=["terrain"]}', "classes.preset=cityscapes13"
    for settings in ([merged, names], [names, merged]):
        assert load_recipe("gta2cs", settings).classes.merged == {"vegetation": ("terrain",)}


def test_a_key_with_a_space_is_set_with_quotes_or_without() -> None:
    for key in ("traffic sign", '"traffic sign"', "'traffic sign'"):
        found = load_recipe("demo", [f'classes.merged.{key}=["traffic light"]']).classes.merged
        assert found["traffic sign"] == ("traffic light",)
    assert "the field's name is no TOML key" in refused("demo", 'classes.merged."traffic sign=[]')


@pytest.mark.parametrize("slip", ["caravan", "", "ignore"])
def test_a_merged_name_that_no_data_set_has_is_refused(slip: str) -> None:
    names = 'classes.names=["road", "car"]'
    said = refused("gta2cs", names, f'classes.merged={{car=["{slip}"]}}')
    assert f"classes.merged.car: neither a data set that fastuda knows nor `ids` has a class '{slip}'" in said
    assert "did you mean truck?" in refused("gta2cs", names, 'classes.merged={car=["trucks"]}')


def test_a_name_merged_into_no_class_is_refused(write: Callable[..., str]) -> None:
    assert "merged names no class of the list: cars; did you mean car?" in refused(
        "gta2cs", 'classes.merged={cars=["bus"]}'
    )
    assert "classes.merged" in refused("gta2cs", "classes.merged={car=[]}")


def test_label_values_may_stand_for_a_merged_name(write: Callable[..., str]) -> None:
    folder = '[source]\nlayout = "folder"\nimages = "i/*"\nlabels = "l/*"\nids = { 1 = "bus", 2 = "road" }\n'
    own = 'base = "gta2cs"\n[classes]\nnames = ["road", "car"]\nmerged = { car = ["bus"] }\n' + folder
    assert load_recipe(write(own)).source.ids == {1: "bus", 2: "road"}
    assert "source.ids names no class of this recipe: bus" in refused(
        write(own.replace('merged = { car = ["bus"] }\n', ""))
    )


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("method.tau=0.9", "method.tau", 0.9),
        ("train.iterations=1000", "train.iterations", 1000),
        ("train.iterations=250_000", "train.iterations", 250_000),
        ("train.optimizer.lr_head=1e-3", "train.optimizer.lr_head", 1e-3),
        ("runtime.deterministic=true", "runtime.deterministic", True),
        ("views.crop_size=[256, 128]", "views.crop_size", [256, 128]),
        ("model.aspp=[6]", "model.aspp", [6]),
        ('htcm.from="mixed"', "htcm.from", "mixed"),
        ("htcm.from=mixed", "htcm.from", "mixed"),
        ("model.weights=/my files/resnet 101.pth", "model.weights", "/my files/resnet 101.pth"),
        ("data.cache=/fast disk/cache", "data.cache", "/fast disk/cache"),
        ("source.root=/data/a=b", "source.root", "/data/a=b"),
        ("seed=5", "seed", 5),
        ('eval.subsets.two=["road", "sky"]', "eval.subsets", {"two": ["road", "sky"]}),
    ],
)
def test_a_setting_changes_that_field_alone(setting: str, field: str, value: Any) -> None:
    base, found = fields(load_recipe("gta2cs")), fields(load_recipe("gta2cs", [setting]))
    changed = {key: found[key] for key in found if found[key] != base[key]}
    assert changed == ({field: value} if base[field] != value else {})
    assert found[field] == value


def test_the_last_setting_of_a_field_holds() -> None:
    assert load_recipe("gta2cs", ["seed=1", "seed=2"]).seed == 2


def test_settings_win_over_the_file(write: Callable[..., str]) -> None:
    assert load_recipe(write('base = "gta2cs"\nseed = 3\n'), ["seed=4"]).seed == 4


def test_own_names_can_be_set_on_a_preset_and_a_preset_on_own_names(write: Callable[..., str]) -> None:
    assert load_recipe("gta2cs", ['classes.names=["road", "sky"]']).classes.build().names == ("road", "sky")
    own = write('base = "gta2cs"\n[classes]\nnames = ["road"]\npalette = [[1, 2, 3]]\n')
    assert load_recipe(own, ["classes.preset=cityscapes13"]).classes.build().names == CITYSCAPES_13


@pytest.mark.parametrize("setting", ["method.tau", "=3", ""])
def test_a_setting_without_field_or_value_shows_how_to_write_it(setting: str) -> None:
    assert "section.field=value, e.g. --set method.tau=0.9" in refused("gta2cs", setting)


def test_a_setting_below_a_plain_value_is_refused() -> None:
    assert "--set seed.tau=1: seed is a value, not a section" in refused("gta2cs", "seed=1", "seed.tau=1")


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("method.taus=0.9", ("method.taus: no such field", "did you mean tau?")),
        ("train.optimizer.lr_heads=1", ("train.optimizer.lr_heads: no such field", "did you mean lr_head?")),
        ("htcm.fron=1", ("htcm.fron: no such field", "did you mean from?")),
        ("metod.tau=0.9", ("metod: no such field", "did you mean method?")),
        ("mix.tau=0.9", ("mix.tau: no such field", "did you mean method.tau?")),
        ("views.lr_head=1", ("views.lr_head: no such field", "lr_head?")),
        ("edge.xyz=1", ("edge.xyz: no such field", "it has enabled, confidence, samples")),
        ("demo.sizes=1", ("demo.sizes: no such field", "did you mean size?")),
        ("method.tau=high", ("method.tau: ", "valid number", "'high'")),
        ("train.iterations=1.5", ("train.iterations: ", "integer", "1.5")),
        ("views.crop_size=512", ("views.crop_size: ", "tuple", "512")),
        ("runtime.deterministic=2", ("runtime.deterministic: ", "boolean", "2")),
        ("method.tau=1.0", ("method.tau: ", "less than 1", "1.0")),
        ("method.tau=-0.1", ("method.tau: ", "greater than or equal to 0", "-0.1")),
        ("views.flip=1.5", ("views.flip: ", "less than or equal to 1", "1.5")),
        ("train.batch_size=0", ("train.batch_size: ", "greater than or equal to 1")),
        ("seed=-1", ("seed: ", "greater than or equal to 0")),
        ("jitter.blur_kernel=4", ("jitter.blur_kernel: a blur kernel is odd", "4")),
        ("views.crop_scale=[0.5, 0.2]", ("views.crop_scale: ", "low <= high")),
        ("views.crop_scale=[0.5, 1.2]", ("views.crop_scale: ", "at most 1")),
        ("views.crop_ratio=[0, 1]", ("views.crop_ratio: ", "0 < low")),
        ("model.depth=34", ("model.depth: ", "18, 50 or 101", "34")),
        ("htcm.from=weak", ("htcm.from: ", "'target' or 'mixed'", "'weak'")),
        ("source.layout=gta", ("source.layout: ", "did you mean gta5?; there are gta5, synthia,", "'gta'")),
        ("method=3", ("method: ", "3")),
        ('eval.subsets.odd=["road", "raod"]', ("eval.subsets.odd names no class of this recipe: raod",)),
        ('source.images="*.png"', ('source: images: only for layout "folder", and this is "gta5"',)),
        ("source.layout=folder", ('source: layout "folder" needs `images`', "images/*.png")),
        ('classes.names=["a", "b", "a"]', ("classes: class names are listed twice: a",)),
        ("classes.palette=[[0, 0, 0]]", ("classes: 19 class names but 1 palette colours",)),
        ("classes.palette=[[0, 0, 256]]", ("classes.palette.0.2: ", "255", "256")),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(setting: str, parts: tuple[str, ...]) -> None:
    message = refused("gta2cs", setting)
    assert message.startswith("recipe gta2cs:\n  ")
    for part in parts:
        assert part in message
    assert "pydantic" not in message
    assert "Value error" not in message


def test_every_wrong_field_is_named_at_once() -> None:
    message = refused("gta2cs", "method.tau=2", "seed=-1", "views.flips=1")
    assert [line.split(":")[0].strip() for line in message.splitlines()[1:]] == ["seed", "views.flips", "method.tau"]


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (("contrast.on=hts", "htcm.enabled=false"), 'contrast.on = "hts" needs htcm.enabled'),
        (("mix.enabled=false",), 'contrast.on = "st" needs mix.enabled; without it set contrast.pixel = false'),
        (
            ("edge.enabled=true", "mix.enabled=false", "contrast.pixel=false", "contrast.prototype=false"),
            "edge.enabled needs mix.enabled and htcm.enabled",
        ),
        (("edge.enabled=true", "htcm.enabled=false"), "edge.enabled needs mix.enabled and htcm.enabled"),
        (("source_mix.enabled=true", "train.batch_size=1"), "needs a train.batch_size of 2 or more"),
        (("source_mix.enabled=true", 'source_mix.long_tail=["tram"]'), "names no class of this recipe: tram"),
        (("warmup.iterations=0", "train.iterations=0"), "there is nothing to train"),
    ],
)
def test_fields_that_exclude_each_other_are_refused(settings: tuple[str, ...], part: str) -> None:
    assert part in refused("gta2cs", *settings)


def test_the_contrast_may_be_named_on_hts_when_there_is_none() -> None:
    recipe = load_recipe(
        "gta2cs", ["contrast.on=hts", "htcm.enabled=false", "contrast.pixel=false", "contrast.prototype=false"]
    )
    assert recipe.contrast.on == "hts"


def test_ids_that_name_no_class_are_refused_with_the_classes_there_are(write: Callable[..., str]) -> None:
    message = refused(write(OWN.replace('7 = "ignore"', '7 = "sand", 8 = "ignore"')))
    assert "source.ids names no class of this recipe: sand" in message
    assert "classes: water, land" in message
    assert '"ignore" for values to leave out' in message


def test_an_unknown_preset_names_the_nearest_and_the_command_that_lists_them() -> None:
    message = refused("gta2cs-egde")
    assert "no recipe is called 'gta2cs-egde'; did you mean gta2cs-edge?" in message
    assert "`fastuda recipes`" in message


def test_an_unknown_base_is_named(write: Callable[..., str]) -> None:
    assert "no recipe is called 'gta2sc'; did you mean gta2cs?" in refused(write('base = "gta2sc"\n'))


def test_invalid_toml_names_the_file_and_the_line(write: Callable[..., str]) -> None:
    path = write('base = "gta2cs"\n[method]\ntau = = 3\n')
    message = refused(path)
    assert f"{path}: not valid TOML" in message
    assert "line 3" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none.toml'}: cannot read this recipe (No such file" in refused(str(tmp_path / "none.toml"))


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    assert "folder.toml: cannot read this recipe (it is a folder, not a file)" in refused(str(tmp_path / "folder.toml"))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "picture.toml").write_bytes(b"\x89PNG\xff\xfe")
    assert "picture.toml: cannot read this recipe" in refused(str(tmp_path / "picture.toml"))


def test_a_recipe_without_data_sets_names_both(write: Callable[..., str]) -> None:
    message = refused(write("seed = 1\n"))
    assert "source: Field required" in message
    assert "target: Field required" in message


@pytest.mark.parametrize("slip", ["true", "false"])
def test_recipes_saved_with_earlier_runs_are_read(slip: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(dump_recipe(load_recipe("gta2cs")).replace("off_by_one = false", f"skip_highest = {slip}"))
    assert load_recipe(str(path)) == load_recipe("gta2cs", [f"mix.off_by_one={slip}"])
