"""The benchmark that weighs operators of variation: it watches a search without changing it, and leaves no trace."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import stepfront.search.algorithm.nsga2 as nsga2
import stepfront.search.algorithm.variation as variation
from benchmarks import methods
from benchmarks.surrogate_table import SurrogateTable
from benchmarks.variation_credit import CROSSED, DEFAULTS, NOT_CROSSED, PRIOR, WAYS, Credit, measure, search


def table(seed: int) -> SurrogateTable:
    """Return a table of 3^6 plans, whose FID falls with width at each unit."""
    rng = np.random.default_rng(seed)
    main = -np.cumsum(rng.uniform(0.0, 0.2, (6, 3)), axis=1)
    widths, costs = (0.5, 0.75, 1.0), np.tile([[0.1, 0.2, 0.3]], (6, 1))
    return SurrogateTable(widths, 6, costs, main - main[:, -1:], np.arange(6.0), {}, 2.0, main, np.zeros((6, 6, 3, 3)))


def test_rates_are_shrunk_to_the_mean() -> None:
    """One without offspring has the mean rate of improvement."""
    names, offspring = (CROSSED, NOT_CROSSED), Counter({CROSSED: 92, NOT_CROSSED: 0})
    half = Credit(offspring, Counter({CROSSED: 46}))  # the mean is (46 + 1) / (92 + 2)
    assert half.rates(names, 1.0) == pytest.approx({CROSSED: 0.5, NOT_CROSSED: 0.5})
    mean = 1 / 94  # of those of which none joined the front
    none = Credit(offspring).rates(names, 2.0)
    rate = PRIOR * mean / (92 + PRIOR)
    assert none[CROSSED] == pytest.approx(rate**2 / (rate**2 + mean**2))


def test_a_search_that_is_watched_is_the_same_search() -> None:
    given = variation.mutations_of, nsga2.make_child
    scores, credit = search(table(0), 3, 60, methods.NO_SCREEN)
    assert (variation.mutations_of, nsga2.make_child) == given
    source = table(0).plan_source(3)
    plain = methods.ours(source, table(0), 60, 3, {"random": 20}, DEFAULTS.variation, methods.NO_SCREEN)
    np.testing.assert_array_equal(scores, plain)
    assert 0 < credit.made_by_variation <= 40
    assert credit.offspring[CROSSED] + credit.offspring[NOT_CROSSED] == credit.made_by_variation
    assert all(credit.improved[name] <= credit.offspring[name] for name in credit.improved)


def test_each_way_is_compared_with_the_operators_as_they_are() -> None:
    rows, every = measure({"a": table(0), "b": table(1)}, 1, 60, methods.NO_SCREEN)
    assert rows["way"].tolist() == [way.name for way in WAYS]
    assert rows["searches"].tolist() == [2, 2, 2]
    assert (rows["ratio, median"][0], rows["fewer : more"][0]) == (1.0, "0 : 0")
    assert every.evaluations == 120
