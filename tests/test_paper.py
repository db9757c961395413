"""Which recipes do the paper's work, so that their pace may be compared with its hours."""

from __future__ import annotations

import pytest

from fastuda.recipe.file import load_recipe
from fastuda.recipe.paper import PAPER_ITERATIONS, same_work


@pytest.mark.parametrize("name", ["gta2cs", "gta2cs-released", "gta2cs-edge", "syn2cs", "syn2cs-edge+released"])
def test_the_papers_pairs_and_variants_of_the_whole_method_do_the_papers_work(name: str) -> None:
    assert load_recipe(name).train.iterations == PAPER_ITERATIONS
    assert same_work(load_recipe(name))


@pytest.mark.parametrize("name", ["demo", "gta2cs-fast", "gta2cs+cmix", "gta2cs+source-only", "gta2cs+dsp-soft"])
def test_other_recipes_do_other_work(name: str) -> None:
    assert not same_work(load_recipe(name))


@pytest.mark.parametrize(
    "setting",
    [
        "train.iterations=40000",
        "train.batch_size=4",
        "views.crop_size=[256, 256]",
        "views.source_size=[640, 360]",
        "views.target_size=[640, 320]",
        "model.depth=50",
        "model.width=0.5",
        'source={layout="folder", images="a/*.png", labels="b/*.png"}',
    ],
)
def test_other_sizes_batches_lengths_or_data_are_other_work(setting: str) -> None:
    assert not same_work(load_recipe("gta2cs", [setting]))
