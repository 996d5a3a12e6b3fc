"""Kernel distance, precision and recall: closed forms, sums written out, and scikit-learn and scipy."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from stepfront.errors import InputError
from stepfront.trainers.metrics.kid_precision_recall import kernel_distance, precision_recall


def normal(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randn(n, d)


# --- kernel distance --------------------------------------------------------------------------------------------------


def test_golden_number_of_the_kernel_distance() -> None:
    # The two sets whose FID test_fid.py checks; the number is that of torch-fidelity's polynomial MMD.
    rng = np.random.RandomState(0)
    n, d = 2000, 64
    first = rng.randn(n, d) @ (np.eye(d) + 0.1 * rng.randn(d, d))
    second = rng.randn(n, d) @ (np.eye(d) + 0.1 * rng.randn(d, d)) + 0.05
    assert kernel_distance(first[:500], second[:500]) == pytest.approx(0.169527800232, abs=1e-11)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 40, 5), (7, 30, 3), (2, 2, 1)])
def test_kernel_distance_is_that_of_the_kernel_matrices_of_scikit_learn(n: int, m: int, d: int) -> None:
    x, y = normal(n, d), normal(m, d, seed=1) + 0.3
    xx, yy, xy = (polynomial_kernel(a, b, degree=3, gamma=1 / d, coef0=1) for a, b in ((x, x), (y, y), (x, y)))
    expected = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * xy.mean()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-11)


def test_kernel_distance_of_constant_rows_in_closed_form() -> None:
    # Without spread nothing is left but k(a, a) + k(b, b) - 2 k(a, b); in one dimension k(x, y) = (xy + 1)^3.
    distance = kernel_distance(np.full((5, 1), 2.0), np.full((4, 1), 3.0))
    assert distance == pytest.approx((4 + 1) ** 3 + (9 + 1) ** 3 - 2 * (6 + 1) ** 3)


def test_kernel_distance_has_the_expectation_of_its_closed_form_without_bias() -> None:
    # For x ~ N(0, 1), y ~ N(a, 1), D = 1: E k = 1 + 3 E[x]E[y] + 3 E[x^2]E[y^2] + E[x^3]E[y^3] over independent pairs.
    def expected(mean: float, other: float) -> float:
        one, two = mean * other, (mean**2 + 1) * (other**2 + 1)
        three = (mean**3 + 3 * mean) * (other**3 + 3 * other)
        return 1 + 3 * one + 3 * two + three

    for shift in (0.0, 0.7):
        mmd = expected(0, 0) + expected(shift, shift) - 2 * expected(0, shift)
        rng = np.random.RandomState(2)
        drawn = [kernel_distance(rng.randn(20, 1), rng.randn(30, 1) + shift) for _ in range(4000)]
        error = np.std(drawn) / len(drawn) ** 0.5
        assert abs(np.mean(drawn) - mmd) < 4 * error
        assert min(drawn) < 0  # an estimate without bias must be able to be


def test_kernel_distance_does_not_depend_on_the_block_and_is_symmetric() -> None:
    x, y = normal(50, 8), normal(60, 8, seed=1) + 0.1
    whole = kernel_distance(x, y, block=1000)
    for block in (1, 7, 50, 59):
        assert kernel_distance(x, y, block) == pytest.approx(whole, rel=1e-10)
    assert kernel_distance(y, x) == pytest.approx(whole, rel=1e-10)


# --- precision and recall ---------------------------------------------------------------------------------------------


def test_precision_and_recall_in_closed_form_on_a_line() -> None:
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    generated = np.array([[0.5], [2.5], [30.0], [31.0]])
    # k = 1: real balls [-1, 1], [0, 2], [1, 3], [2, 18]; generated ones [-1.5, 2.5], [0.5, 4.5], [29, 31], [30, 32].
    assert precision_recall(real, generated, neighbours=1) == (0.5, 0.75)
    # k = 3: real balls reach -10..18 from the ends and 9 around the others; generated ones hold everything.
    assert precision_recall(real, generated, neighbours=3) == (0.5, 1.0)


def test_equal_sets_have_both_and_distant_sets_neither() -> None:
    x = normal(30, 4)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x + 1000) == (0.0, 0.0)


def test_a_collapsed_generator_is_precise_and_forgetful() -> None:
    real = normal(400, 2)
    precision, recall = precision_recall(real, 0.05 * normal(400, 2, seed=1))
    assert precision == 1.0
    assert recall < 0.05
    assert precision_recall(0.05 * normal(400, 2, seed=1), real) == (recall, precision)  # the sets' roles change places


@pytest.mark.parametrize("neighbours", [1, 3, 5])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_precision_and_recall_are_those_of_scikit_learns_neighbours(neighbours: int, offset: float) -> None:
    x, y = normal(150, 6) + offset, 1.3 * normal(120, 6, seed=1) + offset + 0.2

    def share(rows: np.ndarray, centres: np.ndarray) -> float:
        # Asked for no rows, scikit-learn gives the neighbours of those it was fitted to, without themselves.
        radii = NearestNeighbors(n_neighbors=neighbours).fit(centres).kneighbors()[0][:, -1]
        return float((cdist(rows, centres) <= radii).any(axis=1).mean())

    expected = (share(y, x), share(x, y))
    assert 0 < min(expected) < 1
    assert precision_recall(x, y, neighbours) == expected
    assert precision_recall(x, y, neighbours, block=13) == expected


def test_rows_that_repeat_have_balls_of_no_width_which_hold_themselves() -> None:
    rows = np.array([[1.0, 5.0], [2.0, -7.0], [3.0, 0.0]])
    real = np.repeat(np.concatenate([rows, -rows]), 4, axis=0)  # around zero, so that all sums are exact
    assert precision_recall(real, np.concatenate([real[:10], real[:10] + 0.5]))[0] == 0.5


# --- both -------------------------------------------------------------------------------------------------------------


def test_memory_is_bounded_by_the_block() -> None:
    x, y = normal(3000, 8), normal(3000, 8, seed=1)
    table = 3000 * 3000 * 8
    for score in (kernel_distance, precision_recall):
        tracemalloc.start()
        score(x, y, block=50)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < table / 5


def test_what_does_not_compare_is_refused() -> None:
    good = normal(10, 4)
    for score in (kernel_distance, precision_recall):
        with pytest.raises(InputError, match=r"features of 4 and 5 dimensions can't be compared"):
            score(good, normal(10, 5))
        with pytest.raises(InputError, match=r"generated features are \[10\]; \[images, features\] of \d"):
            score(good, np.zeros(10))
        with pytest.raises(InputError, match="real features are not all finite"):
            score(np.full((10, 4), np.nan), good)
        with pytest.raises(InputError, match=r"real features are \[1, 4\]"):
            score(good[:1], good)
    with pytest.raises(InputError, match=r"real features are \[3, 4\]; \[images, features\] of 4 images needed"):
        precision_recall(good[:3], good)
    with pytest.raises(InputError, match="0 neighbours; at least 1 needed"):
        precision_recall(good, good, neighbours=0)
