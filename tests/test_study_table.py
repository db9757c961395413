"""Tables of studies: the paper's numbers, the recipes of their rows, and tables of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastuda.errors import UsageError
from fastuda.recipe.file import load_recipe
from fastuda.study.table import Row, Table, load_table, table_names

# As the paper prints them.
PAPER = {
    "table1": [35.3, 58.8],
    "table2": [30.4, 57.8],
    "table3": [35.3, 52.1, 55.2, 55.6, 56.6, 56.2, 57.5, 57.7, 58.8],
    "table4": [35.3, 52.1, 52.8, 53.6, 54.5, 56.6],
    "table5": [52.9, 53.8, 54.6, 55.2, 56.6, 55.8],
    "table6": [56.8, 58.8],
    "summary": [35.3, None, None, 52.1, 56.6, 58.8, None, None],
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers_stand_in_the_tables(name: str) -> None:
    assert [row.paper for row in load_table(name).rows] == PAPER[name]


def test_every_table_is_tested_here() -> None:
    assert table_names() == sorted(PAPER)


@pytest.mark.parametrize("base", ["gta2cs", "syn2cs", "demo"])
@pytest.mark.parametrize("name", PAPER)
def test_every_row_is_a_recipe_over_every_pair_and_no_two_are_alike(name: str, base: str) -> None:
    recipes = [
        load_recipe(base, layers=[(row.variants, row.set)]).model_copy(update={"description": ""})
        for row in load_table(name).rows
    ]
    for i, recipe in enumerate(recipes):
        assert recipe not in recipes[:i]


def test_rows_of_table_5_differ_in_tau_alone() -> None:
    taus = [load_recipe("gta2cs", layers=[(row.variants, row.set)]).method.tau for row in load_table("table5").rows]
    assert taus == [0.0, 0.35, 0.55, 0.75, 0.95, 0.97]


@pytest.mark.parametrize("name", ["table1", "table2"])
def test_the_papers_classes_are_those_of_its_pair_and_average_to_its_miou(name: str) -> None:
    pair = {"table1": "gta2cs", "table2": "syn2cs"}[name]
    names = set(load_recipe(pair).classes.build().names)
    for row in load_table(name).rows:
        if row.paper_iou:
            assert set(row.paper_iou) == names
            assert sum(row.paper_iou.values()) / len(names) == pytest.approx(row.paper, abs=0.06)


def rows(*pairs: tuple[str, str | None], control: bool = True) -> Table:
    return Table(title="t", control=control, rows=tuple(Row(name=name, variant=variant) for name, variant in pairs))


def test_a_control_is_added_after_a_first_row_source_only_or_else_at_the_end() -> None:
    first = rows(("bare", "source-only"), ("all", None)).with_control()
    assert [(row.name, row.variant) for row in first.rows] == [
        ("bare", "source-only"), ("source only, further", "control"), ("all", None)
    ]  # fmt: skip
    assert first.control_row == first.rows[1]
    last = rows(("all", None), ("bare", "source-only")).with_control()
    assert [row.name for row in last.rows] == ["all", "bare", "source only, further"]


def test_a_table_with_a_control_gets_no_other_and_a_name_that_is_taken_is_not_taken_twice() -> None:
    own = rows(("all", None), ("mine", "control"), ("both", "control+edge"))
    assert own.with_control() is own
    assert own.control_row == own.rows[1]
    named = rows(("source only, further", None), ("source only, further (control)", "edge")).with_control()
    assert named.rows[-1].name == "source only, further (control) (control)"
    assert rows(("all", None)).control_row is None


def test_the_control_is_the_one_that_sets_nothing_further() -> None:
    table = Table(title="t", rows=(Row(name="a", variant="control", set=("seed=1",)), Row(name="b", variant="control")))
    assert table.control_row == table.rows[1]


def test_rows_of_two_tables_that_are_one_recipe_share_a_folder() -> None:
    (dacs,) = [row for row in load_table("table4").rows if row.name == "DACS"]
    (cmix,) = [row for row in load_table("table3").rows if row.name == "CMix"]
    assert dacs.folder == cmix.folder == "cmix"
    assert load_table("table5").rows[1].folder == "cmix-htcm-method.tau=0.35"


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "t"\n[[rows]]\nname = "a"\nvariant = "cmix+edge"\nset = ["seed=1"]\n[[rows]]\nname = "b"\n'
    )
    first, second = load_table(str(path)).rows
    assert (first.variants, first.recipe("x"), second.recipe("x")) == (["cmix", "edge"], "x+cmix+edge", "x")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('title = "t"\nrows = []', "rows: "),
        ('title = "t"\n[[rows]]\nname = "a"\n[[rows]]\nname = "a"', "two rows are called 'a'"),
        ('title = "t"\n[[rows]]\nname = "a"\nvariant = "cmx"', "no variant is called 'cmx'; did you mean cmix?"),
        ('title = "t"\n[[rows]]\nname = "a"\npapers = 1', "rows.0.papers: "),
        ("title = ", "not valid TOML"),
    ],
)
def test_a_wrong_table_is_named_with_what_is_wrong(text: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_table(str(path))
    assert part in str(caught.value)


def test_an_unknown_table_names_the_nearest_and_a_missing_file_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no table is called 'tabel3'; did you mean table3\?; there are summary, "):
        load_table("tabel3")
    with pytest.raises(UsageError, match=r"missing\.toml: cannot read this table"):
        load_table(str(tmp_path / "missing.toml"))
