"""Check the surrogate: leave-one-out predictions, what it learns, and that a resumed search learns the same."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel
from sklearn.gaussian_process.kernels import Sum as SumOfKernels

from stepfront.search.algorithm.proxies import rank_correlation
from stepfront.search.algorithm.surrogate import (
    MOST_STRETCHES,
    MOST_TRIALS,
    Kernel,
    PlanFeatures,
    Surrogate,
    last_refit,
)
from stepfront.search.genomes.encodings import Stages, Steps

ENCODING = Stages(20, (0.25, 0.5, 0.75, 1.0), False, 10)
GAP = np.linspace(1, 3, 20)[:, None] * (3 - np.arange(4))


def draw(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 4, (count, 10)))


def fid_of(levels: np.ndarray) -> float:
    """Late stages matter, an early one hardly does, and two neighbours help each other: not what the gap says."""
    worth = np.linspace(0.1, 3, 10)
    return float(2 + ((3 - levels) * worth).sum() + 0.5 * abs(int(levels[4]) - int(levels[5])))


def unranked(most: int) -> np.ndarray:
    raise AssertionError("few trials are all learnt")


def of_scikit_learn(kernel: Kernel) -> SumOfKernels:
    """Return the same kernel of scikit-learn, with the bounds of a fit."""
    near = ConstantKernel(kernel.height, (1e-3, 1e3)) * RBF(kernel.length, (0.1, 30.0))
    linear = ConstantKernel(kernel.slope, (1e-3, 1e3)) * DotProduct(kernel.offset)
    return near + linear + WhiteKernel(kernel.noise, (1e-4, 1.0))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_kernel_and_its_fit_are_those_of_scikit_learn() -> None:
    x, y = PlanFeatures(ENCODING, GAP)(draw(30)), np.log(list(map(fid_of, draw(30))))
    y = (y - y.mean()) / y.std()
    theirs = GaussianProcessRegressor(of_scikit_learn(Kernel())).fit(x, y).kernel_
    ours = Kernel.fitted(x, y)
    np.testing.assert_allclose(np.log(astuple(ours)), theirs.theta, rtol=1e-6)
    unseen = PlanFeatures(ENCODING, GAP)(draw(20, seed=3))
    kernel = of_scikit_learn(ours)
    np.testing.assert_allclose(ours.among(x), kernel(x), rtol=1e-12)
    np.testing.assert_allclose(ours(unseen, x), kernel(unseen, x), rtol=1e-12)
    np.testing.assert_allclose(ours.diag(unseen), kernel.diag(unseen), rtol=1e-12)


def test_to_believe_plans_is_to_learn_the_models_own_means() -> None:
    features, fid = PlanFeatures(ENCODING, GAP)(draw(30)), np.array(list(map(fid_of, draw(30))))
    believed, unseen = (PlanFeatures(ENCODING, GAP)(draw(6, seed=seed)) for seed in (1, 2))
    model = Surrogate()
    model.learn(features, fid, unranked)
    before, means = model.predict(unseen), model.predict(believed)[0]
    model.believe(believed[:2])
    model.believe(believed[2:])
    assert model._kernel is not None
    logs = np.log(fid)
    mean, scale = logs.mean(), logs.std()
    y = (np.concatenate([logs, means]) - mean) / scale
    whole = GaussianProcessRegressor(of_scikit_learn(model._kernel), optimizer=None)
    expected, deviation = whole.fit(np.vstack([features, believed]), y).predict(unseen, return_std=True)
    found = model.predict(unseen)
    np.testing.assert_allclose(found, [expected * scale + mean, deviation * scale], rtol=1e-6)
    np.testing.assert_allclose(found[0], before[0], rtol=1e-12)
    assert (found[1] < before[1]).all()
    # They count until the next result.
    model.learn(features, fid, unranked)
    assert np.array_equal(model.predict(unseen), before)


def test_leaving_one_out_is_what_a_model_without_that_trial_says() -> None:
    features, fid = PlanFeatures(ENCODING, GAP)(draw(30)), np.array(list(map(fid_of, draw(30))))
    model = Surrogate()
    without = model.learn(features, fid, unranked)
    assert model._kernel is not None
    kernel = of_scikit_learn(model._kernel)
    logs = np.log(fid)
    mean, scale = logs.mean(), logs.std()
    for i in (0, 7, 29):
        rest = np.arange(30) != i
        # Mean and scale of all trials are known to the model either way; the kernel is, too.
        plain = GaussianProcessRegressor(kernel, optimizer=None).fit(features[rest], (logs[rest] - mean) / scale)
        assert without[i] == pytest.approx(plain.predict(features[i : i + 1])[0] * scale + mean, rel=1e-6)
    # And of plans that it never saw it says what scikit-learn's own regressor says.
    whole = GaussianProcessRegressor(kernel, optimizer=None).fit(features, (logs - mean) / scale)
    unseen = PlanFeatures(ENCODING, GAP)(draw(20, seed=3))
    expected, deviation = whole.predict(unseen, return_std=True)
    np.testing.assert_allclose(model.predict(unseen), [expected * scale + mean, deviation * scale], rtol=1e-6)


def test_it_ranks_plans_better_than_the_gap_that_it_begins_with() -> None:
    features = PlanFeatures(ENCODING, GAP)
    known, unknown = draw(40), draw(200, seed=1)
    model = Surrogate()
    model.learn(features(known), np.array(list(map(fid_of, known))), unranked)
    mean, deviation = model.predict(features(unknown))
    true = np.log(list(map(fid_of, unknown)))
    gap = features(unknown)[:, -1]
    assert rank_correlation(mean, true) > rank_correlation(gap, true) + 0.1
    assert rank_correlation(mean, true) > 0.85
    assert (np.abs(mean - true) < 3 * deviation + 0.05).mean() > 0.95


def test_a_resumed_search_predicts_the_same() -> None:
    features = PlanFeatures(ENCODING, GAP)
    plans = draw(41)
    x, fid = features(plans), np.array(list(map(fid_of, plans)))
    steady = Surrogate()
    for count in range(12, 42):
        steady.learn(x[:count], fid[:count], unranked)
    resumed = Surrogate()
    resumed.learn(x, fid, unranked)
    children = features(draw(5, seed=2))
    assert np.array_equal(steady.predict(children)[0], resumed.predict(children)[0])


def test_kernels_are_fitted_at_growing_numbers_of_trials() -> None:
    assert [last_refit(n) for n in (5, 8, 9, 10, 12, 13, 16, 17)] == [5, 8, 8, 10, 10, 13, 13, 17]


def test_of_many_trials_the_best_ranked_are_learnt() -> None:
    plans = draw(MOST_TRIALS + 50)
    features, fid = PlanFeatures(ENCODING, GAP)(plans), np.array(list(map(fid_of, plans)))
    ranks = np.argsort(np.argsort(fid))
    without = Surrogate().learn(features, fid, lambda most: ranks)
    assert np.array_equal(np.isfinite(without), ranks < MOST_TRIALS)


def test_features_of_long_plans_are_means_of_stretches_and_skips_are_seen() -> None:
    encoding = Steps(1000, (0.5, 1.0), True)
    features = PlanFeatures(encoding, np.ones((1000, 2)))
    levels = np.zeros(1000, dtype=np.int64)
    levels[:500] = 1
    levels[-50:] = -1
    (seen,) = features([levels])
    assert len(seen) == 2 * MOST_STRETCHES + 1
    assert seen[:MOST_STRETCHES] == pytest.approx([1.0] * 10 + [0.0] * 10)
    assert seen[MOST_STRETCHES:-1] == pytest.approx([0.0] * 19 + [1.0])
    assert seen[-1] == pytest.approx(0.5 * np.log(950 + 10))  # steps that are left out have no gap; the floor is 1%


def test_the_thermometer_has_one_feature_per_unit_and_level_that_is_reached() -> None:
    encoding = Stages(4, (0.25, 0.5, 1.0), True, 4)
    gap = np.tile([2.0, 1.0, 0.0], (4, 1))
    plain, coded = PlanFeatures(encoding, gap), PlanFeatures(encoding, gap, coding="thermometer")
    (seen,) = coded([np.array([0, 1, 2, -1])])
    assert np.allclose(seen[:8] * np.sqrt(2), [0, 1, 1, 0, 0, 0, 1, 0])
    # Skips and the gap follow as they do without it.
    assert np.array_equal(seen[8:], plain([np.array([0, 1, 2, -1])])[0, 4:])


def test_the_thermometer_learns_faster_what_a_width_is_worth() -> None:
    def uneven(levels: np.ndarray) -> float:
        return float(np.exp((np.array([1.0, 0.1, 0.08, 0.0])[levels] * np.linspace(0.1, 1, 10)).sum()))

    known, unknown = draw(60), draw(200, seed=1)
    fid, true = np.array(list(map(uneven, known))), np.log(list(map(uneven, unknown)))
    errors = {}
    for coding in ("level", "thermometer"):
        # A gap that says nothing: all widths lose the same.
        features, model = PlanFeatures(ENCODING, np.ones((20, 4)), coding=coding), Surrogate()
        model.learn(features(known), fid, unranked)
        errors[coding] = np.abs(model.predict(features(unknown))[0] - true).mean()
    assert errors["thermometer"] < 0.5 * errors["level"]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_score_that_may_be_negative_is_modelled_without_a_logarithm(sign: float) -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(size=(40, 2))
    score = sign * (0.5 - features[:, 0])  # as an accuracy, stored negative, or KID near 0
    model = Surrogate(logarithm=False)
    without = model.learn(features, score, lambda most: np.zeros(len(score), dtype=np.int64))
    assert rank_correlation(without, score) > 0.9
    mean, deviation = model.predict(features[:5])
    np.testing.assert_allclose(mean, score[:5], atol=0.05)
    assert (deviation >= 0).all()
