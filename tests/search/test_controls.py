"""Control families: complete where they are small, unbiased where they are drawn, and DDSM's algorithm as published."""

from __future__ import annotations

import numpy as np
import pytest

from search.controls import _random, cut_plans, versus
from search.ddsm import COST_RATIO, DDSMSearch
from search.encodings import Stages, run_bounds
from search.seeds import SeedSource

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
    source = SeedSource(encoding, np.arange(4.0), np.zeros(2 * units), lambda: np.zeros((2 * units, 4)), 0)
    plans = np.array(_random(source, count))
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


def test_versus_takes_the_best_control_that_costs_no_more() -> None:
    import pandas as pd

    front = pd.DataFrame({"trial": [1, 2], "gflops": [1.0, 3.0], "fid": [5.0, 2.0]})
    controls = pd.DataFrame(
        {"method": ["a", "b", "c"], "plan": ["p", "q", "r"], "gflops": [2.0, 3.0, 4.0], "fid": [4.0, 3.0, 1.0]}
    )
    table = versus(front, controls)
    assert table["control_method"].tolist()[1] == "b"
    assert np.isnan(table["control_fid"].iloc[0])
