"""A search over widths and depths of ODE blocks: searched, scored again, exported, shown."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepfront.dashboards.figures.plans import plans_data, plans_figure
from stepfront.errors import InputError
from stepfront.search.config import settings_from
from stepfront.search.driver.fit import fit_point_weights, fit_points
from stepfront.search.driver.publish import make_evaluator, sample_pixels
from stepfront.search.driver.search import run_search
from stepfront.search.driver.train import run_training
from stepfront.search.export.exported.sample import Point
from stepfront.search.export.program import write_point
from stepfront.search.problem.costs import read_costs
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.tables.search_tables import SearchTables, read_snapshot, read_tables
from stepfront.trainers.inference.cost import count_width, plan_gflops, plan_latency_ms
from stepfront.trainers.variant import Size, Variant, parse_variants
from tests.search.conftest import TINY, Silent, tiny_settings

ODE = ("network.family=ode", "network.multipliers=[1]", "network.widths=[0.5, 1.0]", "network.depths=[1, 2]")
SHALLOW = Variant(0.5, depth=1)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = tiny_settings(
        tmp_path_factory.mktemp("depths"),
        *(*ODE, "space.variants=[0.5, 0.5d1, 1.0, 1.0d1]", "space.stages=6", "budget.trials=7"),
        "initial_plans={uniform: 4, random: 1, gap: 1}",
    )
    run_training(settings, False, lambda report: None, lambda text: None)
    return run_search(settings, False, Silent(), lambda text: None)


def test_trials_run_depths_and_cost_what_their_networks_do(searched: Path) -> None:
    trials, costs = read_snapshot(searched).trials, read_costs(searched)
    assert (trials["state"] == "complete").all()
    assert {"6x0.50d1", "6x1.00d1", "6x0.50", "6x1.00"} <= set(trials["plan"])
    for width in (0.5, 1.0):
        (one,), counted = costs[width].shallower, count_width(find_search(searched)[1].network, 1, 8, width)
        assert (one.macs, one.parameters) == (counted.shallower[0].macs, counted.parameters)
        assert one.latency_ms is not None
        assert one.latency_ms > 0
        assert one.latency_spread is not None, "how far the runs of its measurement differed is kept"
        assert costs[width].spreads[f"width {width:g} at depth 1"] == one.latency_spread >= 0
    for _, row in trials.iterrows():
        plan = plan_of_row(row)
        assert plan.runs == row["plan"]
        assert row["gflops"] == pytest.approx(plan_gflops(plan, costs), rel=1e-12)
        assert row["latency_ms"] == pytest.approx(plan_latency_ms(plan, costs), rel=1e-12)
    shown = {name for cost in read_snapshot(searched).facts["width_costs"] for name in cost["spreads"]}
    assert shown == {f"width {width}{depth}" for width in ("0.5", "1") for depth in ("", " at depth 1")}
    assert read_snapshot(searched).facts["variants"] == ["0.50d1", "0.50", "1.00d1", "1.00"], "by counted cost"


def test_a_trial_scored_again_has_its_score_and_depths_have_other_images(searched: Path) -> None:
    problem = load_problem_of_search(find_search(searched)[1], searched)
    evaluator, trials = make_evaluator(problem, searched), read_snapshot(searched).trials
    row = trials[trials["plan"] == "6x0.50d1"].iloc[0]
    assert evaluator(plan_of_row(row), int(row["images"]), int(row["noise_seed"])).fid == row["fid"]
    assert list(evaluator._networks.of(plan_of_row(row)).shallower) == [Size(0.5, 1)]
    assert list(evaluator._networks.of(plan_of_row(row)).full) == [1.0], (
        "that of the paired score: a plan of 0.5d1 makes no 0.5"
    )
    assert row["fid"] != trials[trials["plan"] == "6x0.50"].iloc[0]["fid"]
    with pytest.raises(
        InputError, match=r"6x1\.00d3 runs 1\.00d3: depth 3 was not trained; possible: d1, and full depth"
    ):
        evaluator(problem.plan([Variant(1.0, depth=3)] * 6), 16, 0)


def test_the_gap_table_has_the_own_loss_of_each_depth(searched: Path) -> None:
    problem = load_problem_of_search(find_search(searched)[1], searched)
    column = {variant: problem.gap[:, i] for i, variant in enumerate(problem.variants)}
    assert (column[Variant(1.0)] == 0).all()
    assert all(math.isfinite(value) and value != 0 for value in column[SHALLOW])
    assert not np.array_equal(column[SHALLOW], column[Variant(0.5)])


def test_an_exported_program_runs_the_depths_of_its_plan(searched: Path, tmp_path: Path) -> None:
    problem, snapshot = load_problem_of_search(find_search(searched)[1], searched), read_snapshot(searched)
    plan = problem.plan(parse_variants("4x0.50d1 2x0.50"))
    with pytest.raises(InputError, match="possible: unet, or --as torch-export"):
        write_point(problem, snapshot.facts, snapshot.front.iloc[0], plan, tmp_path)
    content = write_point(problem, snapshot.facts, snapshot.front.iloc[0], plan, tmp_path, "torch-export")
    assert [network["file"] for network in content["networks"]] == ["width-0.5-depth-1.pt2", "width-0.5.pt2"]
    assert [step.get("depth") for step in content["steps"]] == [1, 1, 1, 1, None, None]
    expected = np.moveaxis(sample_pixels(make_evaluator(problem, searched), plan, 4, 3), 1, 3)
    assert np.array_equal(Point(tmp_path, "cpu").sample([3] * 4, range(4)), expected)


@pytest.mark.parametrize("fit", [fit_points, partial(fit_point_weights, steps=1)])
def test_neither_samplers_nor_weights_are_fitted_to_a_plan_with_depths(searched: Path, fit: Any) -> None:
    front = read_snapshot(searched).front
    shallow = front[front["plan"].str.contains("d1")].iloc[0]
    with pytest.raises(InputError, match="has less depth at some steps"):
        fit(searched, str(shallow["trial"]), stage=lambda text: None)


def test_the_heat_map_names_depths(searched: Path) -> None:
    tables: SearchTables = read_tables(searched)
    data = plans_data(tables)
    texts = [parse_variants(plan) for plan in tables.front["plan"]]
    assert set(data.marks) == {(i, j, "d1") for i, plan in enumerate(texts) for j, v in enumerate(plan) if v.depth == 1}
    assert data.marks, "the cheapest plan is shallow"
    assert "d1: depth 1" in {trace.name for trace in plans_figure(data).data}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[1.0, 1.0d3]", r"space\.variants has 1\.00d3: depth 3 was not trained; possible: d1, and full depth without"),
        ("[1.0, 1.0d2]", r"space\.variants has 1\.00d2: 2 is the full depth, which has no mark; write 1\.00"),
        ("[1.0, 1.0d1r]", r"'1\.0d1r' is not a variant; .* d2 \(depth 2, without r\)"),
        ("[0.5d1, 1.0d1]", "lacks 1.0, the full width"),
    ],
)
def test_impossible_depths_are_refused_in_one_line(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        settings_from(TINY, [*ODE, f"space.variants={given}"])
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"depth 1 was not trained; possible: full depth alone \(network\.depths\)"):
        settings_from(TINY, ["space.variants=[1.0, 1.0d1]"])
