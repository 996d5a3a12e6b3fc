"""A front against its baselines: the best baseline that costs no more, by the search's own cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepfront.search.config import settings_from
from stepfront.search.objectives import excess, violations
from stepfront.search.records.run_directory import find_search
from stepfront.search.scoring.versus import advice, methods_table, versus, versus_on_own_sampler
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import BASELINES, FRONT
from stepfront.tables.search_tables import read_snapshot
from tests.made_up_run import write_made_up_run


def test_versus_takes_the_best_baseline_that_costs_no_more() -> None:
    front = pd.DataFrame({"trial": [1, 2], "gflops": [1.0, 3.0], "fid": [5.0, 2.0]})
    baselines = pd.DataFrame(
        {"method": ["a", "b", "c"], "plan": ["p", "q", "r"], "gflops": [2.0, 3.0, 4.0], "fid": [4.0, 3.0, 1.0]}
    )
    table = versus(front, baselines)
    assert table["baseline_method"].tolist()[1] == "b"
    assert np.isnan(table["baseline_fid"].iloc[0])


def test_the_best_baseline_is_held_against_the_searchs_own_cost() -> None:
    front = pd.DataFrame({"trial": [1], "gflops": [1.0], "latency_ms": [5.0], "fid": [3.0]})
    columns = {"method": ["cheap", "quick"], "plan": ["a", "b"], "gflops": [0.9, 2.0], "latency_ms": [9.0, 4.0]}
    baselines = pd.DataFrame(columns | {"fid": [4.0, 3.5]})
    assert versus(front, baselines, "gflops")["baseline_method"].tolist() == ["cheap"]
    assert versus(front, baselines, "latency_ms")["baseline_method"].tolist() == ["quick"]


def test_the_searchs_network_work_includes_repeats_and_the_fits_in_its_pauses() -> None:
    rows = pd.DataFrame({"fid": [2.0], "gflops": [3.0], "images": [10], "violation": [0.0], "method": ["full"]})
    facts = {"objectives": ["fid", "gflops"], "reference_point": [9.0, 9.0], "noise": {"network_gflops": 7.0}}
    facts["fit_rounds"] = [{"at": 4, "points": [0], "tflops": 0.5}, {"at": 8, "points": [], "tflops": None}]
    table = methods_table(rows, rows, facts).set_index("method")["network_gflops"]
    assert table.to_dict() == {"search": 30.0 + 7.0 + 500.0, "full": 30.0}


def test_violations_are_summed_over_the_constraints() -> None:
    table = pd.DataFrame({"gflops": [1.0, 3.0, np.nan], "fid": [5.0, 9.0, 1.0]})
    found = violations(table, ["gflops <= 2.0", "fid >= 6"])
    assert found.tolist() == pytest.approx([1.0, 1.0, np.nan], nan_ok=True)
    assert violations(table, ()).tolist() == [0.0, 0.0, 0.0]


def test_a_sum_in_another_order_keeps_the_constraint_that_it_meets_exactly() -> None:
    bound, sums = 0.1 + 0.2 + 0.3, [0.1 + 0.2 + 0.3, 0.1 + (0.2 + 0.3), 0.7, 0.5]
    assert sums[0] != sums[1]
    table = pd.DataFrame({"gflops": sums})
    for limit in sums[:2]:
        assert violations(table, [f"gflops <= {limit!r}"]).tolist() == pytest.approx([0.0, 0.0, 0.7 - bound, 0.0])
        assert violations(table, [f"gflops >= {limit!r}"]).tolist() == pytest.approx([0.0, 0.0, 0.0, bound - 0.5])
        assert [excess(each, "<=", limit) <= 0 for each in sums] == [True, True, False, True]


def test_plans_that_break_a_constraint_have_no_hypervolume_and_are_no_best_baseline() -> None:
    """Rows of baselines that an earlier version wrote say that they break none."""
    columns = {"plan": ["a", "b"], "gflops": [1.0, 3.0], "fid": [6.0, 1.0], "images": 10, "violation": [0.0, 1.0]}
    trials = pd.DataFrame(columns)
    baselines = trials.assign(method="samplers", violation=0.0)
    facts = {"objectives": ["fid", "gflops"], "reference": {"fid": 10.0, "gflops": 4.0}}
    table = methods_table(trials, baselines, facts, ["gflops <= 2.0"]).set_index("method")
    assert table["hypervolume"].tolist() == [(10 - 6) * (4 - 1)] * 2
    assert table["evaluations"].tolist() == [2, 2]
    assert table["share"].tolist() == [1.0, 1.0]
    assert (methods_table(trials, baselines, facts)["hypervolume"] == 12 + (6 - 1) * (4 - 3)).all()
    nothing = methods_table(trials, baselines, {"objectives": ["fid", "gflops"]}, ["gflops <= 0.5"])
    assert nothing["hypervolume"].tolist() == [0.0, 0.0]  # no plan keeps them
    front = pd.DataFrame({"trial": [1], "gflops": [4.0], "fid": [3.0]})
    assert versus(front, baselines, "gflops", ["gflops <= 2.0"])["baseline_plan"].tolist() == ["a"]
    assert versus(front, baselines, "gflops")["baseline_plan"].tolist() == ["b"]


def test_full_width_on_other_samplers_hides_no_other_baseline(tmp_path: Path) -> None:
    """It wins nearly always, and of equal scores it comes first."""
    directory, settings = find_search(write_made_up_run(tmp_path, "made-up"))
    point = read_snapshot(directory).front.iloc[[0]]
    rows = [point.assign(method=name, plan=name, fid=point["fid"] - 1) for name in ("fewer_steps", "monotone")]
    rows[0]["fid"] -= 1
    samplers = rows[0].assign(method="samplers", sampler="unipc_2, leading grid")
    write_table(pd.concat([samplers, *rows]).assign(sampler=""), directory / BASELINES)
    write_table(point, directory / FRONT)
    compared = versus_on_own_sampler(directory, settings)
    assert compared["baseline_method"].tolist() == ["fewer_steps"]
    told = advice(compared, settings_from({}, ["space.skip=false"]))
    assert told is not None
    assert told.startswith("fewer full-width steps beat 1 of 1 front points")
    (directory / BASELINES).unlink()
    assert versus_on_own_sampler(directory, settings)["baseline_method"].tolist() == [None]
