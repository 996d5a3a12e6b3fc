"""Baselines: complete families where they are small, unbiased draws elsewhere, and DDSM's algorithm as published."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stepfront.search.algorithm.ddsm import COST_RATIO, DDSMSearch
from stepfront.search.algorithm.encodings import Stages, run_bounds
from stepfront.search.algorithm.initial_plans import PlanSource
from stepfront.search.driver.confirm import savings
from stepfront.search.driver.versus import versus
from stepfront.search.problem.baseline_plans import cut_plans, random_levels

WIDTHS = (0.25, 0.5, 0.75, 1.0)


def test_cut_plans_are_all_of_them() -> None:
    encoding = Stages(12, WIDTHS, False, 6)
    one, two = list(cut_plans(encoding, 1)), list(cut_plans(encoding, 2))
    assert len(one) == len({tuple(p) for p in one}) == 5 * 12  # positions x ordered pairs of levels
    assert len(two) == len({tuple(p) for p in two}) == 10 * 36
    assert {len(run_bounds(p)) - 2 for p in two} == {2}


def test_cut_plans_of_many_units_stay_a_grid() -> None:
    assert len(list(cut_plans(Stages(1000, WIDTHS, False, 1000), 2))) <= 19 * 18 / 2 * 36


@pytest.mark.parametrize(("units", "count"), [(6, 100), (8, 400), (10, 120)])
def test_random_plans_have_even_marginals(units: int, count: int) -> None:
    encoding = Stages(2 * units, WIDTHS, False, units)
    source = PlanSource(encoding, np.arange(4.0), np.zeros(2 * units), lambda: np.zeros((2 * units, 4)), 0)
    plans = np.array(random_levels(source, count))
    assert len({tuple(p) for p in plans}) == count
    # Four standard errors of a uniform level's mean.
    assert np.abs(plans.mean(axis=0) - 1.5).max() < 4 * np.sqrt(1.25 / count)


def test_ddsm_begins_with_the_uniform_plans_and_keeps_the_fittest() -> None:
    encoding = Stages(8, WIDTHS, False, 8)
    search = DDSMSearch(encoding, 0, population=6)
    first = search.ask(100)
    assert [tuple(p) for p in first[:4]] == [(level,) * 8 for level in range(4)]
    assert len(first) == 6
    fids = [9.0, 5.0, 3.0, 2.0, 8.0, float("inf")]
    shares = [0.1, 0.3, 0.6, 1.0, 0.5, 0.5]
    search.tell(list(zip(fids, shares, strict=True)))
    fitness = [f + COST_RATIO * 2.0 * s for f, s in zip(fids, shares, strict=True)]
    best = first[int(np.argmin(fitness))]
    assert np.array_equal(search._population[0], best)
    children = search.ask(4)
    assert len(children) == 4
    assert not {tuple(c) for c in children} & {tuple(p) for p in first}


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


def test_the_saving_is_that_of_the_cheapest_point_by_the_searchs_own_cost() -> None:
    def scored(kind: str, plan: str, fids: list[float]) -> list[dict[str, object]]:
        costs = {"full": (4.0, 8.0), "few FLOPs": (1.0, 6.0), "quick": (2.0, 3.0)}[plan]
        base = {"kind": kind, "plan": plan, "gflops": costs[0], "latency_ms": costs[1]}
        return [base | {"noise_seed": seed, "fid": fid} for seed, fid in enumerate(fids)]

    confirmed = pd.DataFrame(
        scored("full", "full", [2.0, 2.1, 1.9])
        + scored("front", "few FLOPs", [2.0, 2.2, 1.9])
        + scored("front", "quick", [2.1, 2.1, 1.8])
    )
    rows = {"trial": [1, 2], "plan": ["few FLOPs", "quick"], "gflops": [1.0, 2.0], "latency_ms": [6.0, 3.0]}
    front = pd.DataFrame(rows | {"fid_confirmed": [2.0, 2.0], "fid_low": [1.8, 1.8], "fid_high": [2.2, 2.2]})
    by_flops, by_latency = savings(front, confirmed, "gflops"), savings(front, confirmed, "latency_ms")
    assert by_flops is not None
    assert by_latency is not None
    assert (by_flops["plan"], by_flops["flops_saved"]) == ("few FLOPs", 0.75)
    assert (by_latency["plan"], by_latency["latency_saved"]) == ("quick", 0.625)
