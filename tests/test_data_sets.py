"""docs/data-sets: each recipe finds exactly its files among those of the release, and its table knows their values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastuda.classes import CITYSCAPES_19, ClassSet
from fastuda.data.reading.labels import id_table, to_train_ids
from fastuda.data.reading.samples import find_samples
from fastuda.layouts import LAYOUTS
from fastuda.recipe.file import load_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "docs/data-sets").glob("*.toml"))
FILES: dict[str, dict[str, list[str]]] = json.loads((Path(__file__).parent / "data_set_files.json").read_text())


def test_every_recipe_has_files_to_be_tried_on_and_a_row_on_the_page() -> None:
    assert {path.stem for path in RECIPES} == set(FILES)
    page = (ROOT / "docs/own-data.md").read_text()
    for path in RECIPES:
        assert f"(data-sets/{path.name})" in page


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_globs_find_the_releases_own_files_and_no_other(tmp_path: Path, path: Path) -> None:
    files = FILES[path.stem]
    for names in files.values():
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    recipe = load_recipe(str(path), [f"target.root={tmp_path}"])
    training = find_samples(recipe.target, "train", labelled=False)
    paths = {str(sample.image.relative_to(tmp_path)) for sample in training.samples}
    assert set(files["images"]) <= paths
    assert not paths & {*files["others"], *files.get("labels", []), *files["val_labels"]}
    labelled = [("val", "val_images", "val_labels")]
    if recipe.target.labels is not None or "train" in LAYOUTS[recipe.target.layout].labelled:
        labelled.append(("train", "images", "labels"))
    for split, images, labels in labelled:
        found = find_samples(recipe.target, "val" if split == "val" else "train", labelled=True)
        pairs = {
            (str(s.image.relative_to(tmp_path)), str(s.label and s.label.relative_to(tmp_path))) for s in found.samples
        }
        assert {pair[1] for pair in pairs} == set(files[labels])
        assert {pair[0] for pair in pairs} <= set(files[images])
        assert not found.twice
        assert not found.without_image
        found.require_partners(recipe.data.max_unpaired, tmp_path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_tables_name_classes_of_the_recipe_and_every_class_has_a_value(path: Path) -> None:
    recipe = load_recipe(str(path))
    classes = recipe.classes.build()
    layout = LAYOUTS[recipe.target.layout]
    tables = {"label.png": recipe.target.ids or {}}
    if not layout.by_globs:
        tables = {
            "1" + kind.endings[0]: {value: kind.ids.get(value, "ignore") for value in (*range(kind.num_ids), 255)}
            for kind in layout.labels
        }
    for name, ids in tables.items():
        assert set(ids.values()) >= set(classes.names)
        assert set(ids.values()) <= {*classes.names, "ignore", *(() if recipe.target.ids else CITYSCAPES_19)}
        table = id_table(recipe.target, classes, Path(name))
        raw = np.array([sorted(ids)], np.uint8)
        expected = [classes.names.index(ids[v]) if ids[v] in classes.names else 255 for v in sorted(ids)]
        assert to_train_ids(raw, table, Path(name))[0].tolist() == expected


def test_the_binary_masks_foreground_is_a_class() -> None:
    recipe = load_recipe(str(ROOT / "docs/data-sets/road.toml"))
    assert (recipe.target.ids or {})[255] == "road"
    assert recipe.source.ids == recipe.target.ids


def test_cityscapes_ids_are_the_same_table_wherever_they_are_used() -> None:
    domains = [
        load_recipe(str(ROOT / f"docs/data-sets/{name}.toml")).target for name in ("acdc", "dark-zurich", "kitti")
    ]
    tables = [id_table(domain, ClassSet.of(CITYSCAPES_19), Path("label.png")) for domain in domains]
    for table in tables[1:]:
        assert np.array_equal(table.train_ids, tables[0].train_ids)
        assert np.array_equal(table.known, tables[0].known)
