"""What a study runs: one warm-up a seed where rows allow, and which stage of which run each row reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastuda.errors import UsageError
from fastuda.recipe.file import load_recipe
from fastuda.study.plan import Plan, plan_repeats, plan_study
from fastuda.study.table import Row, Table, load_table

FOLDER = Path("runs/x")


def plan_of(
    *rows: Row, seeds: tuple[int, ...] = (0,), settings: tuple[str, ...] = (), init: Path | None = None
) -> Plan:
    """Without a control, which has tests of its own."""
    return plan_study(Table(title="t", rows=rows), "demo", seeds, settings, FOLDER, init=init, control=False)


def folders(plan: Plan) -> list[str]:
    return [str(cell.folder.relative_to(FOLDER)) for cell in plan.cells]


def test_the_rows_of_table_3_share_a_warm_up_a_seed_and_go_seed_by_seed() -> None:
    plan = plan_study(load_table("table3"), "demo", [0, 3], [], FOLDER)
    rows = ["cmix", "cmix-picl", "cmix-procl", "cmix-htcm", "cmix-picl-procl", "cmix-picl-htcm", "cmix-procl-htcm"]
    once = ["warm-up", "control", *rows, "base"]
    assert folders(plan) == [f"{row}/seed-0" for row in once] + [f"{row}/seed-3" for row in once]
    for cell in plan.cells:
        assert cell.recipe.seed == cell.seed
        if cell.warmup is not None:
            assert cell.warmup.seed == cell.seed
            assert cell.init == cell.warmup.folder / "checkpoints" / "source_only-last.safetensors"
            assert cell.recipe.train.iterations == load_recipe("demo").train.iterations


def test_the_source_only_row_reads_the_warm_up_that_the_others_start_from() -> None:
    plan = plan_of(Row(name="all"), Row(name="source only", variant="source-only"))
    assert folders(plan) == ["warm-up/seed-0", "base/seed-0"]
    (source_only,), (adapted,) = plan.of_row["source only"], plan.of_row["all"]
    assert (source_only.cell, source_only.stage) == (plan.cells[0], "source_only")
    assert (adapted.cell, adapted.stage) == (plan.cells[1], "adapted")
    assert source_only.cell.recipe.train.iterations == 0


@pytest.mark.parametrize(
    "change",
    [
        *("method.tau=0.5", "mix.fraction=0.3", "contrast.on=hts", "train.iterations=9", "auxiliary.labels=prediction"),
        "eval.batch_norm=target",
    ],
)
def test_what_only_the_adaptation_reads_leaves_the_warm_up_shared(change: str) -> None:
    plan = plan_of(Row(name="a"), Row(name="b", set=(change,)))
    assert folders(plan)[0] == "warm-up/seed-0"
    assert len(plan.cells) == 3


@pytest.mark.parametrize(
    "change",
    ["model.aspp=[6, 12]", "method.ema_decay=0.9", "auxiliary.weight=0.5", "warmup.iterations=9", "train.batch_size=3"],
)
def test_a_row_that_changes_the_warm_up_has_its_own(change: str) -> None:
    plan = plan_of(Row(name="a"), Row(name="b", set=(change,)))
    folder = plan.cells[3].folder.parent.name
    assert folders(plan) == ["warm-up/seed-0", "base/seed-0", f"warm-up-{folder}/seed-0", f"{folder}/seed-0"]
    assert plan.cells[3].warmup == plan.cells[2]


def test_the_row_of_statistics_alone_starts_from_the_shared_warm_up_and_is_a_run_of_its_own() -> None:
    plan = plan_of(Row(name="all"), Row(name="bn", variant="statistics"), Row(name="bare", variant="source-only"))
    assert folders(plan) == ["warm-up/seed-0", "base/seed-0", "statistics/seed-0"]
    (bn,), (bare,) = plan.of_row["bn"], plan.of_row["bare"]
    assert (bn.cell.warmup, bn.stage) == (plan.cells[0], "adapted")
    assert (bare.cell, bare.stage) == (plan.cells[0], "source_only")


def test_target_statistics_for_all_rows_leave_source_only_as_it_was() -> None:
    plan = plan_of(Row(name="bare", variant="source-only"), Row(name="all"), settings=("eval.batch_norm=target",))
    assert folders(plan) == ["warm-up/seed-0", "base/seed-0"]
    assert [cell.recipe.eval.batch_norm for cell in plan.cells] == ["running", "target"]


def test_the_released_rows_warm_up_is_of_its_own_network() -> None:
    plan = plan_of(Row(name="a", variant="released"))
    assert [cell.recipe.model.aspp for cell in plan.cells] == [(6, 12), (6, 12)]


def test_a_network_given_takes_the_place_of_every_warm_up(tmp_path: Path) -> None:
    init = tmp_path / "source.safetensors"
    init.write_bytes(b"weights")
    plan = plan_of(Row(name="source only", variant="source-only"), Row(name="all"), init=init)
    # The beginning of the file's SHA-256: another network's runs go elsewhere.
    assert folders(plan) == ["init-9a129038/source-only/seed-0", "init-9a129038/base/seed-0"]
    assert [cell.init for cell in plan.cells] == [init, init]
    assert plan.of_row["source only"][0].stage == "source_only"


def test_a_recipe_without_warm_up_has_none() -> None:
    assert folders(plan_of(Row(name="all"), settings=("warmup.iterations=0",))) == ["base/seed-0"]


def test_a_rows_settings_win_over_the_users_and_the_variants_over_both() -> None:
    rows = (Row(name="a", set=("method.tau=0.5",)), Row(name="b", variant="source-only"))
    plan = plan_of(*rows, settings=("method.tau=0.7", "train.iterations=4"))
    assert plan.cells[1].recipe.method.tau == 0.5
    assert plan.cells[1].recipe.train.iterations == 4
    assert plan.of_row["b"][0].cell.recipe.train.iterations == 0


@pytest.mark.parametrize(
    "row",
    [
        Row(name="b", set=("edge.enabled=true",)),
        Row(name="b", variant="cmix-htcm", set=("contrast.pixel=true",)),
        Row(name="b", set=("source_mix.enabled=true", "train.iterations=5")),
    ],
)
def test_a_row_that_switches_a_part_on_starts_from_the_same_source_only_stage(row: Row) -> None:
    plan = plan_of(Row(name="a"), row)
    assert len(plan.cells) == 3
    assert plan.cells[0].recipe.train.iterations == 0


def test_a_warm_up_of_its_own_has_no_adaptation() -> None:
    plan = plan_of(Row(name="b", set=("train.iterations=5", "train.batch_size=4")))
    assert [cell.recipe.train.iterations for cell in plan.cells] == [0, 5]
    assert [cell.recipe.train.batch_size for cell in plan.cells] == [4, 4]


def test_a_row_that_is_no_recipe_over_the_base_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match=r"row 'source only' over demo: (.|\n)*nothing to train"):
        plan_of(Row(name="source only", variant="source-only"), settings=("warmup.iterations=0",))


def test_a_control_is_planned_unless_the_table_or_the_command_says_otherwise() -> None:
    def planned(control: bool, asked: bool) -> list[str]:
        table = Table(title="t", rows=(Row(name="all"),), control=control)
        return list(plan_study(table, "demo", (0,), (), FOLDER, control=asked).of_row)

    assert planned(True, True) == ["all", "source only, further"]
    assert planned(True, False) == planned(False, True) == ["all"]


def test_the_control_starts_from_the_shared_warm_up_and_trains_as_long_on_the_source_alone() -> None:
    plan = plan_study(Table(title="t", rows=(Row(name="all"),)), "demo", (0,), (), FOLDER)
    warmup, everything, control = plan.cells
    assert (control.warmup, control.init) == (warmup, everything.init)
    assert control.recipe.train == everything.recipe.train
    assert (control.recipe.mix.enabled, control.recipe.htcm.enabled, control.recipe.contrast.pixel) == (False,) * 3


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Row(name="a"), ""),
        (Row(name="a", variant="cmix", set=("method.tau=0.5",)), ""),
        (Row(name="a", variant="source-only"), ""),
        (Row(name="a", variant="statistics"), ""),
        (Row(name="a", variant="oracle", needs="target labels"), ""),
        (Row(name="a", set=("train.iterations=9",)), "train.iterations = 9, not 5"),
        (Row(name="a", set=("model.aspp=[6, 12]",)), "it starts from another network"),
        (Row(name="a", variant="source-only", set=("warmup.iterations=9",)), "it starts from another network"),
        (
            Row(name="a", set=("train.batch_size=3",)),
            "it starts from another network, train.batch_size = 3, not 2",
        ),
    ],
)
def test_rows_that_differ_from_the_control_in_more_than_their_losses_are_told(row: Row, why: str) -> None:
    plan = plan_study(Table(title="t", rows=(row,)), "demo", (0, 1), ("train.iterations=5",), FOLDER)
    assert plan.unlike_control == ({"a": why} if why else {})
    bare = plan_study(Table(title="t", rows=(row,)), "demo", (0,), ("train.iterations=5",), FOLDER, control=False)
    assert bare.unlike_control == {}


def test_of_a_network_given_rows_are_unlike_the_control_in_their_length_alone(tmp_path: Path) -> None:
    init = tmp_path / "source.safetensors"
    init.write_bytes(b"weights")
    rows = (
        Row(name="source only", variant="source-only"),
        Row(name="all"),
        Row(name="short", set=("train.iterations=4",)),
    )
    plan = plan_study(Table(title="t", rows=rows), "demo", (0,), ("train.iterations=5",), FOLDER, init=init)
    assert plan.unlike_control == {"short": "train.iterations = 4, not 5"}


def test_repeats_are_whole_runs_with_the_seeds_from_the_recipes_on() -> None:
    plan = plan_repeats(load_recipe("demo", ["seed=5"]), "demo", 3, FOLDER)
    assert folders(plan) == ["seed-5", "seed-6", "seed-7"]
    assert [cell.recipe.seed for cell in plan.cells] == [5, 6, 7]
    assert all(cell.init is None and cell.warmup is None for cell in plan.cells)
    assert {row: [reading.stage for reading in found] for row, found in plan.of_row.items()} == {
        "source only": ["source_only"] * 3,
        "adapted": ["adapted"] * 3,
    }
