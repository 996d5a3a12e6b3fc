"""Rungs: scores in closed form, correlations, and a choice that adds most."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from search.encodings import Stages
from search.rungs import correlations, gap_score, pick_by_rung, rank_correlation


def test_gap_score_sums_each_steps_gap_at_its_width() -> None:
    encoding = Stages(4, (0.5, 1.0), True, 2)
    score = gap_score(encoding, np.array([[4.0, 0], [3, 0], [2, 0], [1, 0]]))
    assert score(np.array([0, 0])) == 10
    assert score(np.array([1, 0])) == 3
    assert score(np.array([1, 1])) == 0
    assert np.isnan(score(np.array([-1, 1])))


def test_rank_correlation_of_equal_reversed_and_missing_orders() -> None:
    order = np.arange(6.0)
    assert rank_correlation(order, order**3) == pytest.approx(1)
    assert rank_correlation(order, -order) == pytest.approx(-1)
    assert rank_correlation(np.array([0, 1, 2, np.nan, 3.0]), np.array([0, 2, 1, 9, 3.0])) == pytest.approx(4 / 6)
    assert np.isnan(rank_correlation(order[:2], order[:2]))


def test_the_child_that_adds_most_hypervolume_is_picked() -> None:
    known_rung = np.array([0.0, 1.0, 2.0, 3.0])
    known = np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.0]])
    # The second child costs as little as the last trial but has a rung as good as the second's.
    costs = np.array([[2.9], [0.1], [3.5]])
    assert pick_by_rung([0.0, 1.0, 0.0], costs, known_rung, known, (4.0, 4.0)) == 1


def test_correlations_of_a_table() -> None:
    rows = [(t, rung, float(v)) for t in range(5) for rung, v in (("gap", t), ("fid", t), ("paired", -t))]
    found = correlations(pd.DataFrame(rows, columns=["trial", "rung", "score"]))
    assert found == [
        {"lower": "gap", "upper": "fid", "tau": 1.0, "n": 5},
        {"lower": "paired", "upper": "fid", "tau": -1.0, "n": 5},
    ]
