"""Check what earlier searches add to the model of FID, and that one that misleads adds nothing."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import methods
from stepfront.arrays import Array
from stepfront.search.algorithm.surrogate import EarlierModel, PlanFeatures, Surrogate
from stepfront.search.algorithm.transfer import (
    SPREAD,
    TransferModel,
    fit_earlier_model,
    left_out_means,
    make_model,
    rank_weights,
)
from stepfront.search.algorithm.trials import Proposal
from stepfront.search.config import RunSettings, ScreenSettings
from stepfront.search.genomes.encodings import Levels, Stages
from stepfront.search.initial_plans.plan_kinds import PlanSource
from stepfront.search.pareto import hypervolume

ENCODING = Stages(8, (0.25, 0.5, 1.0), False, 8)
WORTH = np.linspace(0.1, 1.0, 8)
GAP = np.outer(np.ones(8), [2.0, 1.0, 0.0])


def draw(count: int, seed: int) -> list[Levels]:
    return list(np.random.default_rng(seed).integers(0, 3, (count, 8)))


def logs(plans: list[Levels], worth: Array, factor: float = 1.0) -> Array:
    """Return log FID: each step loses by its width what it is worth."""
    return factor * (np.array([1.0, 0.4, 0.0])[np.array(plans)] * worth).sum(axis=1)


def earlier(worth: Array, seed: int = 5) -> EarlierModel:
    features, plans = PlanFeatures(ENCODING, GAP, coding="thermometer"), draw(60, seed)
    return fit_earlier_model(features, features, plans, np.exp(logs(plans, worth)), unranked)


def unranked(most: int) -> np.ndarray:
    raise AssertionError("few trials are all learnt")


def test_the_weight_of_a_model_is_how_often_it_ranks_best() -> None:
    true = np.arange(12.0)
    assert rank_weights(np.array([true, -true, true[::-1]]), true).tolist() == [1, 0, 0]
    assert rank_weights(np.array([true, 2 * true + 1]), true) == pytest.approx([0.5, 0.5])
    noisy = true + np.random.default_rng(0).normal(0, 2, 12)
    better = true + np.random.default_rng(1).normal(0, 0.5, 12)
    weights = rank_weights(np.array([noisy, better, np.zeros(12)]), true)
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > 0.9


def test_many_models_that_know_nothing_do_not_win_by_chance() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=14)
    own, unrelated = true + rng.normal(0, 0.3, 14), rng.normal(size=(30, 14))
    assert rank_weights(np.array([own, *unrelated]), true).tolist() == [1.0, *[0.0] * 30]


def test_a_line_is_judged_on_trials_that_it_was_not_fitted_to() -> None:
    rng = np.random.default_rng(0)
    prior = rng.normal(size=9)
    true = 3 + 1.5 * prior + rng.normal(0, 0.3, 9)
    for at, found in enumerate(left_out_means(prior, true)):
        others = np.arange(9) != at
        # Ridge regression towards slope 1 is least squares with one more row.
        ridge = np.sqrt(0.1 * 8 * 0.25)
        rows = np.vstack([np.column_stack([np.ones(8), prior[others]]), [0.0, ridge]])
        offset, slope = np.linalg.lstsq(rows, np.append(true[others], ridge), rcond=None)[0]
        assert found == pytest.approx(offset + slope * prior[at])


def test_an_earlier_search_makes_few_trials_enough() -> None:
    known, unseen = draw(10, 1), draw(200, 2)
    model, plain = earlier(WORTH), Surrogate()
    features = PlanFeatures(ENCODING, GAP, (model,), "thermometer")
    cold = PlanFeatures(ENCODING, GAP, coding="thermometer")
    # Here FID is another multiple of what is lost, and the early steps matter a little more.
    true = WORTH + np.linspace(0.1, 0.0, 8)
    fid, expected = np.exp(logs(known, true, 0.8) + 1), logs(unseen, true, 0.8) + 1
    warm = make_model(features)
    assert isinstance(warm, TransferModel)
    warm.learn(features(known), fid, unranked)
    plain.learn(cold(known), fid, unranked)
    assert warm.weights[1] > 0.5
    error = np.abs(warm.predict(features(unseen))[0] - expected).mean()
    assert error < 0.6 * np.abs(plain.predict(cold(unseen))[0] - expected).mean()


def test_one_that_misleads_loses_its_weight() -> None:
    features = PlanFeatures(ENCODING, GAP, (earlier(WORTH[::-1]), earlier(WORTH)), "thermometer")
    model, known = TransferModel(2), draw(14, 1)
    noise = np.random.default_rng(0).normal(0, 0.05, 14)
    model.learn(features(known), np.exp(logs(known, WORTH) + noise), unranked)
    assert model.weights[1] < 0.1
    assert model.weights[2] > 0.5
    assert model.weights.sum() == pytest.approx(1)


def test_a_mixture_without_trust_predicts_as_a_cold_model_does_and_is_surer() -> None:
    features, known, unseen = PlanFeatures(ENCODING, GAP, (earlier(WORTH),)), draw(14, 1), draw(30, 2)
    fid = np.exp(logs(known, WORTH[::-1]))
    model, cold = TransferModel(1), Surrogate()
    model.learn(features(known), fid, unranked)
    cold.learn(PlanFeatures(ENCODING, GAP)(known), fid, unranked)
    model.weights = np.array([1.0, 0.0])
    mean, deviation = model.predict(features(unseen))
    plain_mean, plain_deviation = cold.predict(PlanFeatures(ENCODING, GAP)(unseen))
    assert mean == pytest.approx(plain_mean)
    assert deviation == pytest.approx(SPREAD * plain_deviation)
    assert SPREAD < 1


def test_models_that_differ_are_less_sure_together() -> None:
    features, known, unseen = PlanFeatures(ENCODING, GAP, (earlier(WORTH),)), draw(14, 1), draw(30, 2)
    model = TransferModel(1)
    model.learn(features(known), np.exp(logs(known, WORTH[::-1])), unranked)
    found = []
    for weights in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]):
        model.weights = np.array(weights)
        found.append(model.predict(features(unseen)))
    (first, of_first), (second, of_second), (mean, deviation) = found
    assert mean == pytest.approx((first + second) / 2)
    # The variance of a mixture: that within its parts and that between them.
    between = (SPREAD * (first - second) / 2) ** 2
    assert deviation**2 == pytest.approx((of_first**2 + of_second**2) / 2 + between)


def test_a_resumed_search_predicts_the_same() -> None:
    features, plans = PlanFeatures(ENCODING, GAP, (earlier(WORTH),)), draw(20, 3)
    x, fid = features(plans), np.exp(logs(plans, WORTH[::-1]))
    steady, resumed = TransferModel(1), TransferModel(1)
    for count in range(4, 21):
        steady.learn(x[:count], fid[:count], unranked)
    resumed.learn(x, fid, unranked)
    assert np.array_equal(steady.weights, resumed.weights)
    children = features(draw(5, 4))
    assert np.array_equal(steady.predict(children)[0], resumed.predict(children)[0])


def test_lines_stay_as_long_as_kernels_do_where_trials_are_many() -> None:
    features, plans = PlanFeatures(ENCODING, GAP, (earlier(WORTH),)), draw(175, 3)
    x, fid = features(plans), np.exp(logs(plans, WORTH[::-1]) + np.random.default_rng(0).normal(0, 0.1, 175))

    def worth(most: int) -> np.ndarray:
        return np.argsort(np.argsort(fid))

    steady, resumed = TransferModel(1), TransferModel(1)
    for count in (140, 171, 172, 175):  # 172 is where the next kernel would be fitted, were there no most
        steady.learn(x[:count], fid[:count], lambda most, count=count: worth(most)[:count])
    resumed.learn(x, fid, worth)
    assert np.array_equal(steady.weights, resumed.weights)
    children = features(draw(5, 4))
    assert np.array_equal(steady.predict(children), resumed.predict(children))


def searched_volume(seed: int, model: EarlierModel | None) -> float:
    """Return the hypervolume after 20 evaluations of a search that starts from an earlier one, or cold."""
    costs = np.array([1.0, 4.0, 16.0])
    source = PlanSource(ENCODING, costs, np.linspace(-3, 3, 8), lambda: GAP, seed)

    def score(levels: Levels) -> tuple[float, float]:
        return float(np.exp(logs([levels], WORTH)[0])), float(costs[levels].sum())

    screen = ScreenSettings(coding="thermometer", acquisition="expected", neighbours=60)
    initial = {"uniform": 3, "gap": 5, "monotone": 4}
    front = [] if model is None else [Proposal(ENCODING.pack(plan), "front:x") for plan in draw(4, 9)]
    scores = methods.ours(
        source, score, 20, seed, initial, RunSettings().variation, screen,
        earlier=() if model is None else (model,), front=front,
    )  # fmt: skip
    return hypervolume(scores, [1.1 * scores[:, 0].max(), 1.05 * 16 * 8])


def test_unrelated_data_cost_nothing_beyond_noise_and_related_data_help() -> None:
    cold = np.mean([searched_volume(seed, None) for seed in range(2)])
    misled = np.mean([searched_volume(seed, earlier(WORTH[::-1])) for seed in range(2)])
    helped = np.mean([searched_volume(seed, earlier(WORTH)) for seed in range(2)])
    assert misled > 0.99 * cold
    assert helped > cold
