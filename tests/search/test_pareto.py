"""Dominance, hypervolume, knee and intervals against closed forms and pymoo."""

from __future__ import annotations

import numpy as np
import pytest

from stepfront.errors import InputError
from stepfront.search.optuna_internals import fast_non_domination_rank
from stepfront.search.pareto import (
    domination_rank,
    expected_hypervolume_gains,
    front_indices,
    front_size_history,
    hypervolume,
    hypervolume_gains,
    hypervolume_history,
    interval,
    knee_index,
)

POINTS = np.array([[1, 5], [2, 3], [4, 1], [3, 3], [5, 0.5]], dtype=float)


def test_hypervolume_of_five_points_in_closed_form() -> None:
    assert hypervolume(POINTS, (6, 6)) == pytest.approx(17.5, abs=1e-12)


def test_hypervolume_of_random_points_in_two_and_three_dimensions() -> None:
    rng = np.random.RandomState(0)
    assert hypervolume(rng.rand(200, 2), (1, 1)) == pytest.approx(0.963071255284, abs=1e-11)
    assert hypervolume(rng.rand(60, 3), (1, 1, 1)) == pytest.approx(0.852439446564, abs=1e-11)


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume(np.array([[7.0, 0.0], [0.0, 7.0]]), (6, 6)) == 0
    assert hypervolume(np.vstack([POINTS, [[7.0, 0.0]]]), (6, 6)) == pytest.approx(17.5)
    assert hypervolume(np.zeros((0, 2)), (6, 6)) == 0


def test_history_is_the_hypervolume_of_each_prefix() -> None:
    scores = np.random.default_rng(0).random((60, 2))
    scores[7] = [np.nan, 0.1]
    history = hypervolume_history(scores, (0.9, 0.9))
    for i in range(len(scores)):
        prefix = scores[: i + 1]
        assert history[i] == pytest.approx(hypervolume(prefix[np.isfinite(prefix).all(axis=1)], (0.9, 0.9)), abs=1e-12)
    assert (np.diff(history) >= 0).all()
    sizes = front_size_history(scores)
    assert [sizes[i] for i in (0, 20, 59)] == [len(front_indices(_finite(scores[: i + 1]))) for i in (0, 20, 59)]


def _finite(scores: np.ndarray) -> np.ndarray:
    return scores[np.isfinite(scores).all(axis=1)]


@pytest.mark.parametrize("objectives", [2, 3])
def test_gains_are_what_each_point_alone_adds(objectives: int) -> None:
    rng = np.random.default_rng(2)
    scores, points, reference = rng.random((40, objectives)), rng.random((50, objectives)), [0.8] * objectives
    points[3, 0], points[4] = np.nan, scores[5]
    front = scores[front_indices(scores)]
    before = hypervolume(scores, reference)
    expected = [hypervolume(np.vstack([scores, point]), reference) - before for point in points]
    expected[3] = 0.0
    assert max(expected) > 0.005
    for known in (front, front[::-1], front[:1]):
        gains = hypervolume_gains(points, known, reference)
        if len(known) > 1:
            np.testing.assert_allclose(gains, expected, atol=1e-12)
        assert (gains >= 0).all()
    alone = hypervolume_gains(points[:1], np.zeros((0, objectives)), reference)
    np.testing.assert_allclose(alone, hypervolume(points[:1], reference))


def test_expected_gains_are_the_mean_of_the_gains_over_the_distribution() -> None:
    rng = np.random.default_rng(0)
    front, reference = np.array([[0.5, 4.0], [1.0, 2.0], [3.0, 1.0]]), (5.0, 6.0)
    mean, deviation = np.log([0.3, 0.9, 2.0, 1.5]), np.array([0.2, 0.5, 1.0, 0.6])
    costs = np.array([5.0, 1.5, 0.5, 3.0])
    expected = expected_hypervolume_gains(mean, deviation, costs, front, reference)
    drawn = np.exp(mean + deviation * rng.normal(size=(40_000, 4)))
    sampled = [
        hypervolume_gains(np.column_stack([each, np.full(len(each), cost)]), front, reference).mean()
        for each, cost in zip(drawn.T, costs, strict=True)
    ]
    np.testing.assert_allclose(expected, sampled, rtol=0.03)


@pytest.mark.parametrize("within", [(-np.inf, 1.4), (0.6, np.inf), (0.7, 6.0), (0.4, 2.0)])
def test_expected_gains_within_an_interval_are_the_mean_over_the_scores_in_it(within: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    front, reference = np.array([[0.5, 4.0], [1.0, 2.0], [3.0, 1.0]]), (5.0, 6.0)
    mean, deviation = np.log([0.3, 0.9, 2.0, 1.5]), np.array([0.5, 0.5, 1.0, 0.6])
    costs = np.array([5.0, 1.5, 0.5, 3.0])
    expected = expected_hypervolume_gains(mean, deviation, costs, front, reference, within)
    drawn = np.exp(mean + deviation * rng.normal(size=(100_000, 4)))
    for each, cost, value in zip(drawn.T, costs, expected, strict=True):
        gains = hypervolume_gains(np.column_stack([each, np.full(len(each), cost)]), front, reference)
        counted = np.where((each >= within[0]) & (each <= within[1]), gains, 0.0)
        assert value == pytest.approx(counted.mean(), abs=5 * counted.std() / np.sqrt(len(each)) + 1e-12)


def test_expected_gains_without_spread_are_the_gains() -> None:
    rng = np.random.default_rng(1)
    points = rng.random((30, 2))
    front = np.array([[0.2, 0.6], [0.6, 0.3]])
    for known in (front, np.zeros((0, 2))):
        expected = expected_hypervolume_gains(np.log(points[:, 0]), np.zeros(30), points[:, 1], known, (0.9, 0.8))
        np.testing.assert_allclose(expected, hypervolume_gains(points, known, (0.9, 0.8)), atol=1e-6)


def test_ranks_are_told_apart_as_far_as_is_asked() -> None:
    scores = np.random.default_rng(3).random((200, 2))
    whole, some = domination_rank(scores), domination_rank(scores, enough=30)
    last = np.sort(whole)[29]
    assert np.array_equal(some[whole <= last], whole[whole <= last])
    assert (some[whole > last] == last + 1).all()


def test_ranks_agree_with_pymoo() -> None:
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    scores = np.random.default_rng(1).random((80, 2)).round(2)
    theirs = NonDominatedSorting().do(scores, return_rank=True)[1]
    assert np.array_equal(domination_rank(scores), theirs)


def test_front_is_unique_sorted_by_cost_and_not_dominated() -> None:
    scores = np.vstack([POINTS, POINTS[1]])
    front = front_indices(scores)
    assert [tuple(scores[i]) for i in front] == [(5, 0.5), (4, 1), (2, 3), (1, 5)]


def test_infeasible_points_are_never_on_the_front() -> None:
    penalty = np.array([0, 0.1, 0, 0, 0])
    assert 1 not in front_indices(POINTS, penalty)
    assert len(front_indices(POINTS, np.ones(5))) == 0


def test_knee_of_a_bent_front() -> None:
    assert knee_index(np.array([[0, 10], [1, 1], [10, 0]], dtype=float)) == 1
    assert knee_index(np.array([[5, 1], [3, 2]], dtype=float)) == 1  # no bend: the better FID
    with pytest.raises(InputError, match="empty front"):
        knee_index(np.zeros((0, 2)))


def test_interval_is_students() -> None:
    mean, low, high = interval(np.array([1.0, 2.0, 3.0]))
    half = 4.302652729911275 / np.sqrt(3)  # t(0.975, 2) x sd / sqrt(n), sd = 1
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - half, 2.0 + half), abs=1e-9)


@pytest.mark.parametrize("enough", [None, 1, 20, 1000])
def test_ranks_of_two_objectives_are_those_of_optuna(enough: int | None) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(int(rng.integers(1, 300)), 2)).round(1 + seed % 3)  # many are equal
        ranks = domination_rank(scores, np.zeros(len(scores)), enough)
        assert np.array_equal(ranks, fast_non_domination_rank(scores, n_below=enough))
