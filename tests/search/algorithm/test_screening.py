"""Proxies: scores in closed form, correlations, and a choice that adds most."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from optuna.trial import create_trial

from stepfront.search.algorithm.encodings import Stages
from stepfront.search.algorithm.screening import CarriedProxy, best_child, correlations, gap_score, rank_correlation
from stepfront.search.pareto import front_indices, hypervolume


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
    front = np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.0]])
    # The second child costs little and is expected to be as good as the second point of the front.
    costs = np.array([[2.9], [0.1], [3.5]])
    assert best_child(np.array([0.0, 1.0, 0.0]), costs, front, (4.0, 4.0)) == 1
    gains = []
    for fid, cost in ((0.0, 2.9), (1.0, 0.1), (0.0, 3.5)):
        everything = np.vstack([front, [fid, cost]])
        gains.append(hypervolume(everything[front_indices(everything)], (4.0, 4.0)))
    assert int(np.argmax(gains)) == 1


def test_the_first_child_is_taken_where_none_is_expected_to_add_anything() -> None:
    front = np.array([[0.0, 3.0], [3.0, 0.0]])
    assert best_child(np.array([3.5, np.nan]), np.array([[3.5], [0.1]]), front, (4.0, 4.0)) == 0


def test_a_carried_proxy_expects_fid_to_rise_with_the_proxy() -> None:
    proxy = CarriedProxy(lambda levels: float(levels.sum()), lambda trial: float(trial.number))
    trials = [create_trial(values=[0.0, 0.0]) for _ in range(4)]
    for number, trial in enumerate(trials):
        trial.number = number
    tau = proxy.learn(trials, np.array([[1.0, 0], [3.0, 0], [2.0, 0], [6.0, 0]]))
    assert tau == pytest.approx(4 / 6)
    # 3 and 2 are pooled to 2.5: the expectation never falls.
    assert proxy.predict([np.array([0]), np.array([1]), np.array([2]), np.array([9])]) == pytest.approx(
        [1, 2.5, 2.5, 6]
    )


def test_correlations_of_a_table() -> None:
    rows = [(t, proxy, float(v)) for t in range(12) for proxy, v in (("gap", t), ("fid", t), ("paired", -t))]
    found = correlations(pd.DataFrame(rows, columns=["trial", "proxy", "score"]))
    assert found == [
        {"lower": "gap", "upper": "fid", "tau": 1.0, "n": 12},
        {"lower": "paired", "upper": "fid", "tau": -1.0, "n": 12},
    ]
    few = pd.DataFrame([row for row in rows if row[0] < 11], columns=["trial", "proxy", "score"])
    assert correlations(few) == []
