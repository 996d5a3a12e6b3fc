"""Baseline plans: complete families where they are small, unbiased draws elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stepfront.search.genomes.encodings import Stages, run_bounds
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.problem.baseline_plans import cut_plans, random_levels, spread_evenly

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


@pytest.mark.parametrize(
    ("possible", "count", "expected"),
    [
        (range(2, 21, 2), 10, list(range(2, 21, 2))),  # learnt samplers: each of them, the cheapest included
        (range(2, 21, 2), 100, list(range(2, 21, 2))),
        (range(2, 21, 2), 4, [2, 8, 14, 20]),
        ((3, 5, 20), 2, [3, 20]),
        ((3, 5, 20), 1, [20]),
        (range(1, 7), 3, [1, 4, 6]),
    ],
)
def test_fewer_steps_are_spread_over_the_numbers_that_have_a_sampler(
    possible: Sequence[int], count: int, expected: list[int]
) -> None:
    assert spread_evenly(possible, count) == expected
