"""Several GPUs as a model: its arithmetic by hand, what it counts against the code it counts, the commands of it."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from commands import fastuda, settings
from steps import tiny
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fastuda.method import contrast
from fastuda.method.contrast import prototype_loss
from fastuda.model.build import build_network
from fastuda.recipe import Recipe
from fastuda_bench import all_reduce
from fastuda_bench.all_reduce import all_reduce_rows, fitted
from fastuda_bench.exchange import Contrasted, Exchange, Gather, exchanged
from fastuda_bench.feeding import DECODE_SECONDS, IMAGE_BYTES, STORES, Store, need
from fastuda_bench.links import Cluster, Link, ring_bytes, ring_seconds
from fastuda_bench.scaling import CARDS, RANKS, WAYS, Card, Pace, efficiency_rows, iteration_seconds
from fastuda_bench.scaling_figures import scaling_check
from fastuda_kernels.pixel_contrast.gathered import contrast_among

ROOT = Path(__file__).resolve().parents[1]
INSIDE, BETWEEN = Link("inside", 1e9, (1e-3, 1e-3), ""), Link("between", 1e8, (2e-3, 2e-3), "")
CLUSTER = Cluster(INSIDE, BETWEEN)
PACE = Pace(Card("a card", 1e15, 1e15, CLUSTER), compute=1.0)
START = 8.4e-6
EXCHANGE = Exchange(
    trained=25_000_000,
    statistics=0,
    flops=100.0,
    backwards=((10.0, 40.0), (60.0, 80.0)),
    batch_norm=(),
    contrasted=(),
)
"""100 MB of gradients, whose first backward pass has 60 % of the work behind it, and whose last one is 20 % of it."""


def test_a_ring_sends_each_byte_twice_but_for_the_own_share() -> None:
    assert [ring_bytes(800, ranks) for ranks in (1, 2, 8)] == [0, 800, 1400]
    assert ring_seconds(800, 4, alpha=0.5, beta=0.001) == 6 * 0.5 + 1.2


def test_an_all_reduce_goes_over_the_inner_links_of_a_machine_and_then_over_the_networks() -> None:
    alone = CLUSTER.all_reduce(80e6, 1)
    inside = CLUSTER.all_reduce(80e6, 8)
    across = CLUSTER.all_reduce(80e6, 16)
    assert alone == 0
    assert inside == pytest.approx(START + 14 * (1e-3 + 10e6 / 1e9))
    assert across == pytest.approx(START + 14 * (1e-3 + 10e6 / 1e9) + 2 * (2e-3 + 40e6 / 1e8))
    with pytest.raises(ValueError, match="12 ranks are neither within a machine of 8 nor whole machines"):
        CLUSTER.all_reduce(1, 12)


def test_an_all_gather_is_half_an_all_reduce_of_all_parts_and_parts_start_apart() -> None:
    whole = CLUSTER.all_reduce(80e6, 16) - START
    assert CLUSTER.all_gather(5e6, 16) == pytest.approx(START + whole / 2)
    steps = 14 * 1e-3
    assert CLUSTER.all_reduce(80e6, 8, times=3) - CLUSTER.all_reduce(80e6, 8) == pytest.approx(2 * (START + steps))


def test_small_messages_take_the_protocol_of_less_latency_and_a_quarter_of_the_bandwidth() -> None:
    cluster = Cluster(Link("x", 1e9, (10e-6, 1e-6), ""), BETWEEN)
    assert cluster.all_reduce(2, 2) == pytest.approx(3.6e-6 + 2 * (1e-6 + 1 / 0.25e9))
    assert cluster.all_reduce(2e6, 2) == pytest.approx(8.4e-6 + 2 * (10e-6 + 1e6 / 1e9))


def test_an_iteration_computes_and_exchanges_what_does_not_hide() -> None:
    exchange = ring_seconds(1000, 2, 0.01, 1e-4)
    assert exchange == pytest.approx(0.12)
    assert iteration_seconds(1.0, 1000, 2, 0.01, 1e-4) == pytest.approx(1.12)
    assert iteration_seconds(1.0, 1000, 2, 0.01, 1e-4, hidden=0.1) == pytest.approx(1.02)
    assert iteration_seconds(1.0, 1000, 2, 0.01, 1e-4, hidden=5.0) == 1.0


def test_what_each_way_leaves_exposed() -> None:
    assert EXCHANGE.buckets == 3
    gradients = CLUSTER.all_reduce(100e6, 8, 3)
    losses = CLUSTER.all_reduce(128, 8)
    exposed = {way: PACE.exposed(EXCHANGE, way, 8) for way in WAYS}
    assert exposed["fp32"] == pytest.approx(gradients + losses)
    assert exposed["bf16"] == pytest.approx(CLUSTER.all_reduce(50e6, 8, 3) + losses)
    assert exposed["overlap"] == exposed["fp32"]  # the first pass's hide, the last pass's are as many
    assert exposed["in the pass"] == pytest.approx(gradients / 3 + losses)  # all but the last bucket
    assert exposed["sync"] == exposed["negatives"] == exposed["fp32"]
    assert PACE.efficiency(EXCHANGE, "fp32", 8) == pytest.approx(1 / (1 + gradients + losses))
    assert all(PACE.exposed(EXCHANGE, way, 1) == 0 for way in WAYS)


def test_what_does_not_fit_behind_the_passes_is_exposed() -> None:
    quick = Pace(PACE.card, compute=0.1)
    gradients, losses = CLUSTER.all_reduce(100e6, 8, 3), CLUSTER.all_reduce(128, 8)
    assert quick.exposed(EXCHANGE, "overlap", 8) == pytest.approx(2 * gradients - 0.1 * 0.6 + losses)
    assert quick.exposed(EXCHANGE, "in the pass", 8) == pytest.approx(gradients - 0.1 * 0.2 + losses)


def test_what_is_gathered_forward_is_summed_backward_over_all_parts() -> None:
    gathers = (Gather(1000, True), Gather(10, False))
    exchange = Exchange(0, 0, 1.0, ((0, 1),), gathers, ())
    wanted = CLUSTER.all_gather(1000, 4) + CLUSTER.all_gather(10, 4) + CLUSTER.all_reduce(4000, 4)
    extra = PACE.exposed(exchange, "sync", 4) - PACE.exposed(exchange, "fp32", 4)
    assert extra == pytest.approx(wanted)


def test_the_line_is_found_again_and_has_no_latency_below_zero() -> None:
    sizes = (1e4, 1e6, 1e8)
    line = fitted(3, {int(size): ring_seconds(size, 3, 2e-4, 1e-9) for size in sizes})
    assert (line.alpha, line.beta) == (pytest.approx(2e-4), pytest.approx(1e-9))
    assert line.seconds(5e7) == pytest.approx(ring_seconds(5e7, 3, 2e-4, 1e-9))
    falling = fitted(2, {1000: 1e-7, 2000: 3e-7})
    assert falling.alpha == 0
    assert falling.beta > 0


def test_what_a_rank_reads_and_how_many_a_store_feeds() -> None:
    recipe = tiny("gta2cs", "train.batch_size=2", "views.source_size=[64, 32]", "views.target_size=[32, 32]")
    one = need(recipe, Pace(PACE.card, compute=0.5), "png")
    assert one.images == 8
    assert one.bytes == pytest.approx(4 * (1.39 * (2048 + 1024) + 0.05 * 2048))
    assert one.cores == pytest.approx(4 * 15.36e-9 * (2048 + 1024 + 2048 / 3))
    assert one.most_ranks(Store("shared", 3.5 * one.bytes, True, "")) == 3
    assert one.most_ranks(Store("own", 7.9 * one.bytes, False, "")) == 7
    assert one.most_ranks(Store("own", 8 * one.bytes, False, "")) is None
    assert {store.name for store in STORES if store.shared} == {f"NFS {speed} Gb/s" for speed in (10, 25, 100)}


def test_bytes_and_decoding_are_those_of_the_results_file() -> None:
    rows = {row["format"]: row for row in json.loads((ROOT / "bench/results/formats.json").read_text())}
    for pack, name in (("png", "png (fastuda)"), ("raw", "raw")):
        width, height = rows[name]["size"]
        assert IMAGE_BYTES[pack] == pytest.approx(rows[name]["bytes_an_image"] / width / height, rel=0.01)  # type: ignore[index]
        seconds = rows[name]["decode_ms"]["median"] / 1000 / width / height
        assert DECODE_SECONDS[pack] == pytest.approx(seconds, rel=0.03)  # type: ignore[index]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return tiny("gta2cs", "train.batch_size=2")


@pytest.fixture(scope="module")
def exchange(recipe: Recipe) -> Exchange:
    return exchanged(recipe)


def test_the_exchange_is_counted_from_the_recipes_own_step(recipe: Recipe, exchange: Exchange) -> None:
    network = build_network(recipe)
    trained = sum(one.numel() for one in network.parameters() if one.requires_grad)
    layers = [one for one in network.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    channels = sum(layer.num_features for layer in layers)
    assert exchange.trained == trained
    assert exchange.statistics == 2 * channels
    assert (exchange.gradients("fp32"), exchange.gradients("bf16")) == (4 * trained, 2 * trained)
    # Source and target view, and a pass of the mixed views, a group each; no gradient of the target's.
    assert len(exchange.batch_norm) == 3 * len(layers)
    assert sum(one.differentiable for one in exchange.batch_norm) == 2 * len(layers)
    assert sum(one.num_bytes for one in exchange.batch_norm) == 4 * 2 * channels * (1 + 1 + 3)
    (first_begins, first_ends), (last_begins, last_ends) = exchange.backwards
    assert 0 < first_begins < first_ends < last_begins < last_ends == exchange.flops
    # A backward pass has about twice the operations of its forward pass.
    assert 1.5 < (first_ends - first_begins) / first_begins < 2.1


def test_negatives_are_what_the_contrast_would_gather(recipe: Recipe, exchange: Exchange) -> None:
    gathered: list[tuple[int, bool]] = []

    def gather(x: Tensor) -> Tensor:
        gathered.append((x.numel() * x.element_size(), x.requires_grad))
        return x[None].expand(2, *x.shape)

    num_classes = len(recipe.classes.build())
    logits = [torch.randn(2, num_classes, 4, 4, requires_grad=True) for _ in range(2)]
    labels = torch.zeros(2, 32, 32, dtype=torch.uint8)
    with (
        patch.object(contrast, "gather", gather),
        patch.object(contrast, "num_ranks", lambda: 2),
        patch.object(contrast, "own_rank", lambda: 0),
    ):
        prototype_loss(*logits, labels, recipe.contrast, gathered=True)
    one = exchange.contrasted[1]
    assert (one.images, one.rows, one.classes, one.chosen) == (2, 2 * num_classes, num_classes, True)
    assert sorted(gathered) == sorted((one.num_bytes, one.differentiable) for one in one.gathers)
    pixels = exchange.contrasted[0]
    assert not pixels.chosen
    assert [one.num_bytes for one in pixels.gathers] == [4 * 2 * pixels.rows * num_classes]


def test_operations_of_the_gathered_contrast_are_those_that_torch_counts() -> None:
    one = Contrasted(images=2, rows=12, classes=5, chosen=False)
    rows = torch.rand(2, 3 * 12, 5, requires_grad=True)
    with FlopCounterMode(display=False) as counted:
        contrast_among(rows[:, :12], rows, 0, 20.0).backward()  # type: ignore[no-untyped-call]
    assert counted.get_total_flops() == one.flops(3)
    assert one.moved(3) == 7 * 4 * 2 * 12 * 36


def test_more_ranks_are_never_more_efficient_and_bf16_never_less(exchange: Exchange) -> None:
    for row in efficiency_rows(exchange, [Pace(card, compute=0.05) for card in CARDS]):
        shares = [row["efficiency"][str(ranks)] for ranks in RANKS]
        assert shares == sorted(shares, reverse=True)
        assert 0 < shares[-1] <= shares[0] <= 1
        assert row["kind"] == row["compute"] == "model"


def test_the_command_prints_the_tables_and_writes_rows_that_are_called_a_model(tmp_path: Path) -> None:
    code, output = fastuda("bench", "scaling", "gta2cs", *settings(), "--json", tmp_path / "rows.json")
    assert code == 0, output
    assert output.count(": model") == 3
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {row["part"] for row in rows} == {"exchange", "efficiency", "feeding"}
    assert {row["kind"] for row in rows} == {"model"}
    assert all(row["question"] == "scaling" and row["recipe"] == "gta2cs" and row["commit"] for row in rows)
    assert scaling_check(rows).startswith("Not measured yet: `fastuda bench scaling --measure ")


def test_measured_milliseconds_take_the_rooflines_place(tmp_path: Path) -> None:
    steps = tmp_path / "step.json"
    row = {"question": "step", "recipe": "gta2cs", "gpu": "NVIDIA H100 80GB HBM3", "ms": {"median": 61.0}}
    steps.write_text(json.dumps([row | {"ms": {"median": 90.0}}, row]))
    asked = ("bench", "scaling", "gta2cs", *settings(), "--step", steps, "--json", tmp_path / "rows.json")
    assert fastuda(*asked)[0] == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    computes = {(one["card"], one["compute"]) for one in rows if one["part"] == "efficiency"}
    assert computes == {("H200", "model"), ("H100", "measured"), ("A100", "model"), ("RTX 3090", "model")}
    assert {one["compute_ms"] for one in rows if one.get("card") == "H100"} == {61.0}

    for content, said in (
        ([row | {"gpu": "NVIDIA L4"}], "measured on NVIDIA L4; the model knows H200, H100, A100, RTX 3090"),
        ([row | {"error": "broke"}], "holds no sound rows of `fastuda bench step gta2cs`"),
        ([row | {"recipe": "demo"}], "holds no sound rows of `fastuda bench step gta2cs`"),
        ({"rows": []}, "holds no sound rows of `fastuda bench step gta2cs`"),
    ):
        steps.write_text(json.dumps(content))
        code, output = fastuda(*asked)
        assert code == 2
        assert said in output


def test_all_reduces_of_this_machine_are_measured_and_held_against_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_reduce, "FITTED", (2**12, 2**16, 2**20))
    monkeypatch.setattr(all_reduce, "HELD_OUT", (2**18,))
    said: list[str] = []
    rows = all_reduce_rows(2, tmp_path / "a folder", repeats=2, report=said.append)
    assert [row["bytes"] for row in rows] == [2**12, 2**16, 2**18, 2**20]
    assert [row["fitted"] for row in rows] == [True, True, False, True]
    assert {row["kind"] for row in rows} == {"measured"}
    for row in rows:
        assert 0 < row["fastest_ms"] <= row["ms"]["median"]
        assert row["model_error"] == pytest.approx(row["model_ms"] / row["fastest_ms"] - 1, abs=0.02)
    (line,) = said
    assert line.startswith("2 ranks: ")
    table = scaling_check(rows)
    assert table.count("**predicted**") == 1
    assert "What was predicted is wrong by " in table
