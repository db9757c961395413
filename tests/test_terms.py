"""Loss terms and paste masks of a contributor's own: a file each, through training, kills, variants and studies."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from added_modules import added, documented
from steps import AS_IT_IS, SMALL, batches, begin
from torch import Tensor
from whole_runs import run, run_killed, saved_state

from fastuda.errors import UsageError
from fastuda.method.draws import Draws
from fastuda.method.losses import mixed_losses
from fastuda.method.mixing import mix_crops, mixed_views
from fastuda.method.pseudo_labels import PseudoLabels, label_target
from fastuda.method.step import adaptation_step, warmup_step
from fastuda.method.terms import OWN, all_terms
from fastuda.recipe import Recipe
from fastuda.recipe.file import dump_recipe, load_recipe
from fastuda.recipe.parts import SWITCHES
from fastuda.recipe.term import RESERVED
from fastuda.recipe.text import explained
from fastuda.recipe.validation import recipe_of
from fastuda.study.plan import plan_study
from fastuda.study.table import Row, Table

ENTROPY = '''
from fastuda.method.added_term import AddedSourceTerm

class Entropy(AddedSourceTerm):
    """Mean entropy on the source, and the features' size."""
    reads_features = True
    def source_value(self, outputs, labels, recipe):
        p = outputs.logits.float().softmax(1)
        return -(p * p.clamp(min=1e-6).log()).sum(1).mean() + outputs.features.float().square().mean()

TERM = Entropy
'''
LOST = '''
from fastuda.method.added_term import AddedViewTerm

class Lost(AddedViewTerm):
    """Of a view with a misspelt name."""
    def needs(self, recipe):
        return ("stong",)
    def value(self, views, recipe):
        return views.outputs["stong"].logits.mean()

TERM = Lost
'''


MIXED = LOST.replace("stong", "strong").replace("Of a view with a misspelt name", "Of the class-mixed view")
TWICE = """
from fastuda.method.terms.lost import Lost

class Twice(Lost):
    \"\"\"Brings a view that there is already.\"\"\"
    def needs(self, recipe):
        return ("hts",)
    def images(self, source, target, pseudo, passes, draws):
        return {"hts": target.strong}

TERM = Twice
"""
NEAR = """
from fastuda.method.terms.mixed import Lost as Mixed

class Near(Mixed):
    \"\"\"Compares the class-mixed view's features with the frozen start's.\"\"\"
    reads_features = reads_reference = True
    def value(self, views, recipe):
        outputs = views.outputs["strong"]
        return (outputs.features - outputs.reference).square().mean()

TERM = Near
"""
TERMS = {
    "near.py": NEAR,
    "entropy.py": ENTROPY,
    "lost.py": LOST,
    "mixed.py": MIXED,
    "twice.py": TWICE,
    "total.py": ENTROPY,
}
TERMS |= documented("fastuda/method/terms")


@pytest.fixture
def contributed(tmp_path: Path) -> Iterator[None]:
    with (
        added("fastuda.method.terms", tmp_path / "terms", TERMS),
        added("fastuda.method.masks", tmp_path / "masks", documented("fastuda/method/masks")),
    ):
        yield


def small(*settings: str) -> Recipe:
    return load_recipe("gta2cs", [*SMALL, "method.tau=0.0", *settings])


def losses_of(recipe: Recipe, num_iterations: int = 1, *, source_only: bool = False) -> list[dict[str, float]]:
    state = begin(recipe)
    source, target = batches(recipe)
    found = []
    for _ in range(num_iterations):
        losses = (
            warmup_step(state, source, recipe, AS_IT_IS)
            if source_only
            else adaptation_step(state, source, target, recipe, AS_IT_IS)
        )
        found.append({name: float(loss) for name, loss in losses.items()})
    return found


def test_a_term_is_one_file_and_enters_the_sum_with_its_weight(contributed: None) -> None:
    plain = losses_of(small())[0]
    found = losses_of(small("terms.cutout.weight=0.5", "terms.cutout.side=0.4"))[0]
    assert set(found) - set(plain) == {"cutout"}
    assert {name: found[name] for name in plain if name != "total"} == {
        name: plain[name] for name in plain if name != "total"
    }
    assert found["total"] == pytest.approx(plain["total"] + 0.5 * found["cutout"], rel=1e-5)
    assert found["cutout"] > 0
    everything = losses_of(small("terms.cutout.side=1.0"))[0]["cutout"]
    nothing = losses_of(small("terms.cutout.side=0.0"))[0]["cutout"]
    assert len({everything, nothing, found["cutout"]}) == 3


def test_a_term_is_compiled_with_the_others_without_a_break(contributed: None) -> None:
    recipe = small("terms.cutout.side=0.4", "mix.mask.kind=cutmix")
    state, draws = begin(recipe), Draws(0, torch.tensor(3))
    source, target = batches(recipe)
    pseudo = label_target(state.student, target, AS_IT_IS)
    views = mixed_views(state.student, source, target, pseudo, recipe, AS_IT_IS, draws)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the compiler does inside torch, as where iterations are compiled
        compiled = torch.compile(mixed_losses, fullgraph=True, backend="aot_eager")(views, recipe)
    expected = mixed_losses(views, recipe)
    assert list(compiled) == list(expected)
    assert "cutout" in expected
    for name, loss in expected.items():
        torch.testing.assert_close(compiled[name], loss)


def test_a_term_whose_view_nobody_makes_is_named(contributed: None) -> None:
    with pytest.raises(UsageError, match=r"the term lost needs a view 'stong', and the recipe makes strong, weak, hts"):
        losses_of(small("terms.lost.weight=0.5"))


def test_a_term_on_the_class_mixed_view_needs_the_mix(contributed: None) -> None:
    assert "mixed" in losses_of(small("terms.mixed.weight=0.5"))[0]
    apart = ("mix.enabled=false", "contrast.on=hts", "htcm.from=target")
    with pytest.raises(UsageError, match=r"term mixed needs a view 'strong', which is class-mixed, and mix\.enabled"):
        losses_of(small("terms.mixed.weight=0.5", *apart))


def test_a_term_compares_views_with_the_frozen_start_whenever_they_were_made(contributed: None) -> None:
    for more in ((), ("auxiliary.labels=prediction",), ("htcm.from=mixed",)):
        assert losses_of(small("terms.near.weight=0.5", *more))[0]["near"] > 0


def test_a_view_that_there_is_already_is_brought_by_nobody_else(contributed: None) -> None:
    with pytest.raises(UsageError, match=r"the term twice brings a view 'hts', and there is one of that name"):
        losses_of(small("terms.twice.weight=0.5"))


def test_no_term_takes_the_name_of_the_methods_own_losses(contributed: None) -> None:
    assert {term.name for term in OWN} | {"total"} == set(RESERVED)
    with pytest.raises(UsageError, match=r"'total' is what logs call a loss of the method's own"):
        small("terms.total.weight=0.5")


def test_a_term_draws_anew_in_every_iteration_and_for_every_seed(contributed: None) -> None:
    still = ("train.optimizer.lr_backbone=1e-12", "train.optimizer.lr_head=1e-12")
    one = losses_of(small("terms.cutout.side=0.5", *still), 3)
    again = losses_of(small("terms.cutout.side=0.5", *still), 3)
    other = losses_of(small("terms.cutout.side=0.5", "seed=1", *still), 3)
    assert one == again
    assert len({losses["cutout"] for losses in one}) == 3
    assert one[0]["cutout"] != other[0]["cutout"]


def test_a_term_on_the_source_counts_in_both_stages(contributed: None) -> None:
    recipe = small("terms.entropy.weight=0.25")
    warm, adapts = losses_of(recipe, source_only=True)[0], losses_of(recipe)[0]
    assert set(warm) == {"source", "entropy", "total"}
    assert warm["total"] == pytest.approx(warm["source"] + 0.25 * warm["entropy"], rel=1e-6)
    assert adapts["entropy"] == pytest.approx(warm["entropy"], rel=1e-6)
    assert "entropy" in adapts


@pytest.mark.parametrize("more", [(), ("runtime.grouped=true", "runtime.flat_update=true")], ids=["plain", "fast"])
def test_a_killed_run_with_draws_of_its_own_goes_on_in_the_same_bits(
    more: tuple[str, ...],
    contributed: None,
    tmp_path: Path,
    tiny: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tiny("terms.cutout.side=0.4", "mix.mask.kind=cutmix", *more)
    run(recipe, tmp_path / "whole")
    run_killed(recipe, tmp_path / "killed", monkeypatch)
    expected, found = saved_state(tmp_path / "whole"), saved_state(tmp_path / "killed")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert any("cutout" in json.dumps(row) for row in rows)


def test_tables_of_terms_and_masks_are_part_of_the_recipe(contributed: None) -> None:
    import tomllib

    recipe = small("terms.cutout.side=0.25", "mix.mask.kind=cutmix", "mix.mask.share=0.25")
    assert recipe_of(tomllib.loads(dump_recipe(recipe)), "dumped") == recipe
    text = explained(recipe)
    assert "# Of the square, as a share of the crop's.\nside = 0.25" in text
    assert "# Of the crop's area.\nshare = 0.25" in text


def test_errors_name_terms_masks_and_their_fields(contributed: None) -> None:
    with pytest.raises(UsageError, match=r"terms\.cutout\.sid: no such field; did you mean side\?"):
        small("terms.cutout.sid=0.5")
    with pytest.raises(UsageError, match=r"terms\.cutout\.side: Input should be less than or equal to 1"):
        small("terms.cutout.side=1.5")
    with pytest.raises(UsageError, match=r"terms\.cutut: nothing is called 'cutut'; did you mean cutout\?"):
        small("terms.cutut.side=0.5")
    with pytest.raises(UsageError, match=r"terms\.htcm: nothing is called 'htcm'; there are feature_distance, "):
        small("terms.htcm.weight=0.5")
    with pytest.raises(UsageError, match=r"mix\.mask: nothing is called 'cutmx'; did you mean cutmix\?"):
        small("mix.mask.kind=cutmx")
    with pytest.raises(UsageError, match=r'source_mix\.enabled pastes classes, and mix\.mask\.kind is "cutmix"'):
        load_recipe("gta2cs+dsp-soft", ["mix.mask.kind=cutmix"])


def test_a_variant_starts_from_no_parts_so_that_a_new_one_cannot_leak(contributed: None, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "gta2cs"\n[terms.cutout]\n')
    assert set(load_recipe(str(tmp_path / "mine.toml")).terms) == {"cutout"}
    for variant in ("cmix", "control", "source-only", "htcm", "dsp-soft"):
        assert load_recipe(f"{tmp_path / 'mine.toml'}+{variant}").terms == {}
    assert set(load_recipe(f"{tmp_path / 'mine.toml'}+edge").terms) == {"cutout"}
    (tmp_path / "row.toml").write_text('base = "mine.toml"\nparts = ["mix", "cutout"]\n')
    row = load_recipe(str(tmp_path / "row.toml"))
    assert (set(row.terms), row.mix.enabled, row.htcm.enabled, row.contrast.pixel) == ({"cutout"}, True, False, False)


def test_parts_can_be_set_and_are_checked() -> None:
    recipe = load_recipe("gta2cs", ['parts=["htcm"]'])
    assert (recipe.mix.enabled, recipe.htcm.enabled, recipe.contrast.pixel, recipe.contrast.prototype) == (
        *(False, True, False, False),
    )
    with pytest.raises(UsageError, match=r"parts: 'cmix' is none; there are mix, source_mix, htcm, pixel"):
        load_recipe("gta2cs", ['parts=["cmix"]'])
    with pytest.raises(UsageError, match=r'parts: a list of names, such as \["mix", "htcm"\], not'):
        load_recipe("gta2cs", ["parts=3"])


def test_every_switch_turns_terms_on_and_every_term_has_one() -> None:
    seen = set()
    for part in SWITCHES:
        others = {"source_mix": [], "edge": ["htcm"]}.get(part, [])
        parts = sorted({"mix", *others, part})
        recipe = load_recipe("gta2cs", [f"parts={json.dumps(parts)}"])
        seen |= {term.name for term in all_terms(recipe) if term.is_on(recipe)}
    assert seen == {term.name for term in OWN}
    off = load_recipe("gta2cs", ["parts=[]"])
    assert [term.name for term in OWN if term.is_on(off)] == ["source"]


def test_rows_share_a_warm_up_unless_a_term_has_a_say_in_it(contributed: None, tmp_path: Path) -> None:
    def warmups(*rows: Row) -> int:
        plan = plan_study(Table(title="t", rows=rows), "gta2cs", [0], SMALL, tmp_path / "study")
        return len({cell.folder for cell in plan.cells if cell.row == "warm-up"})

    plain = Row(name="a", variant="cmix")
    cutout = Row(name="b", variant="cmix", set=("terms.cutout.side=0.5",))
    entropy = Row(name="c", variant="cmix", set=("terms.entropy.weight=0.5",))
    assert warmups(plain, cutout) == 1
    assert warmups(plain, entropy) == 2


def mixed(recipe: Recipe, number: int = 0) -> Tensor:
    """bool [B, H, W]: where the source was pasted."""
    source, target = batches(recipe)
    shape = source.weak.shape[:3]
    labels = torch.zeros(shape, dtype=torch.uint8)
    pseudo = PseudoLabels(labels, torch.zeros(shape), labels)
    draws = Draws(recipe.seed, torch.tensor(number))
    return mix_crops(source, target, pseudo, recipe, AS_IT_IS, draws, "nowhere").pasted


def test_a_mask_is_one_file_and_says_which_pixels_are_pasted(contributed: None) -> None:
    recipe = small("mix.mask.kind=cutmix", "mix.mask.share=0.25")
    pasted = mixed(recipe)
    for one in pasted:
        rows, columns = one.any(1).nonzero().flatten(), one.any(0).nonzero().flatten()
        assert one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()  # a rectangle
        assert one.float().mean().item() == pytest.approx(0.25, abs=0.08)
        assert math.prod((len(rows), len(columns))) == one.sum()
    assert torch.equal(pasted, mixed(recipe))
    assert not torch.equal(pasted, mixed(recipe, 1))
    assert not mixed(small("mix.mask.kind=cutmix", 'parts=["htcm"]')).any()
    assert not torch.equal(mixed(small()), pasted)
