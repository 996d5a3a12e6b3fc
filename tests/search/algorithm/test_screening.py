"""Check that screening picks the child that adds most hypervolume, and only with a proxy that it trusts."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.trial import FrozenTrial, create_trial

from stepfront.plugins import PROXIES
from stepfront.search.algorithm.encodings import Stages
from stepfront.search.algorithm.proxies import ModelProxy, ProxyInputs, find_proxy
from stepfront.search.algorithm.screening import Screening, best_child
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, PlanFeatures
from stepfront.search.config import ScreenSettings
from stepfront.search.pareto import front_indices, hypervolume


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


class Progress:
    """A search of some complete trials and a front of one point."""

    def __init__(self, trials: int) -> None:
        self.complete: list[FrozenTrial] = [create_trial(values=[1.0, 1.0]) for _ in range(trials)]

    def scores(self) -> np.ndarray:
        return np.ones((len(self.complete), 2))

    def front_scores(self) -> np.ndarray:
        return np.array([[3.0, 3.0]])

    def reference_point(self) -> list[float] | None:
        return [4.0, 4.0]


class FixedProxy:
    """A proxy of a given correlation that expects the second child to be the best."""

    def __init__(self, tau: float) -> None:
        self._tau = tau

    def learn(self, trials: object, scores: object) -> float:
        return self._tau

    def predict(self, children: object) -> np.ndarray:
        return np.array([3.0, 1.0])


@pytest.mark.parametrize(
    ("tau", "trials", "chosen"),
    [(0.5, LEAST_TRIALS, 1), (0.4, LEAST_TRIALS, 0), (np.nan, LEAST_TRIALS, 0), (0.9, LEAST_TRIALS - 1, 0)],
)
def test_a_proxy_chooses_only_while_its_correlation_is_known_and_high(tau: float, trials: int, chosen: int) -> None:
    screening = Screening(FixedProxy(tau), lambda levels: [1.0], 0.5)
    children = [np.array([0]), np.array([1])]
    assert screening(children) == 0  # before it watches a search
    screening.watch(Progress(trials))
    assert screening(children) == chosen


def test_every_proxy_of_the_settings_can_be_made() -> None:
    encoding, gap = Stages(4, (0.5, 1.0), False, 2), np.array([[1.0, 0.0]] * 4)
    inputs = ProxyInputs(encoding, lambda: PlanFeatures(encoding, gap), lambda: lambda levels: 0.0)
    for name in PROXIES.ours:
        assert find_proxy(name)(inputs) is not None
        assert ScreenSettings(proxy=name).proxy == name


class KnownDistribution(ModelProxy):
    """A model that expects one child to be surely a bit better, and the other to be perhaps far better."""

    def __init__(self) -> None:
        self.learnt = 0

    def learn(self, trials: object, scores: object) -> float:
        self.learnt += 1
        return 0.9

    def distribution(self, children: object) -> tuple[np.ndarray, np.ndarray]:
        return np.log([2.0, 3.2]), np.array([1e-3, 0.6])


def test_the_expected_gain_weighs_what_the_optimistic_gain_takes_for_granted() -> None:
    children = [np.array([0]), np.array([1])]
    chosen = {}
    for acquisition in ("optimistic", "expected"):
        proxy = KnownDistribution()
        screening = Screening(proxy, lambda levels: [2.0], 0.5, acquisition=acquisition)
        screening.watch(Progress(LEAST_TRIALS))
        chosen[acquisition] = screening(children)
        assert screening(children) == chosen[acquisition]
        assert proxy.learnt == 1  # once per result, not once per proposal
    # One deviation below its mean the second is at 1.76; the mean of its gains is below the first one's.
    assert chosen == {"optimistic": 1, "expected": 0}
