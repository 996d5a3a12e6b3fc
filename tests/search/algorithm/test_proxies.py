"""Check proxies against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.trial import create_trial

from stepfront.search.algorithm.proxies import CarriedProxy, gap_score, rank_correlation
from stepfront.search.genomes.encodings import Stages


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


def test_plans_that_a_proxy_cannot_score_alone_have_no_expected_score() -> None:
    """One plan under way may be asked for alone, so there may be nothing to predict."""
    proxy = CarriedProxy(lambda levels: float("nan"), lambda trial: float(trial.number))
    trials = [create_trial(values=[float(i)]) for i in range(3)]
    for number, trial in enumerate(trials):
        trial.number = number
    proxy.learn(trials, np.arange(3.0)[:, None])
    assert np.isnan(proxy.predict([np.zeros(2, dtype=np.int64)])).tolist() == [True]
