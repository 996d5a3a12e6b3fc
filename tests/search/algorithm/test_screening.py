"""Check that screening picks the child that adds most hypervolume, and only with a proxy that it trusts."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from optuna.trial import FrozenTrial, create_trial

from stepfront.plugins import PROXIES
from stepfront.search.algorithm.encodings import Stages
from stepfront.search.algorithm.proxies import ModelProxy, ProxyInputs, find_proxy
from stepfront.search.algorithm.screening import Screening, best_child, make_screening
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
        self.learnt, self._of_fid = 0, True

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


class Learning(Progress):
    """A search of random plans, with a fitted one, better than all, after each third."""

    def __init__(self, encoding: Stages, trials: int) -> None:
        super().__init__(0)
        for number, levels in enumerate(np.random.default_rng(0).integers(0, 2, (trials, 4))):
            values, about = [5.0 - levels.sum(), 1.0 + levels.sum()], {"genome": encoding.pack(levels)}
            self.complete.append(create_trial(values=values, user_attrs=about))
            if number % 3 == 2:
                self.complete.append(create_trial(values=[0.01, 0.5], user_attrs=about | {"learnt": "abc"}))

    def scores(self) -> np.ndarray:
        return np.array([trial.values for trial in self.complete])

    def front_scores(self) -> np.ndarray:
        return self.scores()[front_indices(self.scores())]

    def reference_point(self) -> list[float]:
        return [6.0, 6.0]


def test_fitted_plans_teach_neither_the_screening_nor_what_leads_the_first_generation() -> None:
    encoding, gap = Stages(4, (0.5, 1.0), False, 4), np.array([[1.0, 0.0]] * 4)
    everything, own = Learning(encoding, 15), Learning(encoding, 15)
    own.complete = [trial for trial in own.complete if "learnt" not in trial.user_attrs]
    plans = [np.array(bits) for bits in np.ndindex(2, 2, 2, 2)]
    chosen = []
    for progress in (everything, own):
        features = PlanFeatures(encoding, gap, (lambda asked: -np.asarray(asked).sum(axis=1) / 4,))
        model = ModelProxy(features, lambda trial: encoding.unpack(trial.user_attrs["genome"]))
        screening = Screening(model, lambda levels: [1.0 + float(levels.sum())], -1.0, acquisition="expected")
        assert screening.has_earlier
        complete = progress.complete
        for count in range(4, len(complete) + 1):
            progress.complete = complete[:count]
            screening.watch(progress)
            led, screened = screening.lead(plans), screening(plans)
            if "learnt" not in complete[count - 1].user_attrs:
                chosen.append((led, screened, *model.trust))
    assert chosen[: len(chosen) // 2] == chosen[len(chosen) // 2 :]
    assert any(one[0] is not None for one in chosen)
    assert any(one[1] for one in chosen)


class PartlyUnknown(FixedProxy):
    """A proxy that can't score some children, and expects the last one to be the best."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__(0.9)
        self._scores = scores

    def predict(self, children: object) -> np.ndarray:
        return np.array(self._scores)


@pytest.mark.parametrize(("scores", "chosen"), [([np.nan, 3.9, 1.0], 0), ([3.9, np.nan, 1.0], 2)])
def test_a_first_child_that_the_proxy_can_not_score_is_evaluated(scores: list[float], chosen: int) -> None:
    screening = Screening(PartlyUnknown(scores), lambda levels: [1.0], 0.5)
    screening.watch(Progress(LEAST_TRIALS))
    assert screening([np.array([level]) for level in range(3)]) == chosen


def test_proxies_of_own_scores_are_told_so() -> None:
    encoding, told = Stages(4, (0.5, 1.0), False, 2), []

    def make(inputs: ProxyInputs) -> FixedProxy:
        told.append(inputs.of_fid)
        return FixedProxy(0.9)

    with patch("stepfront.search.algorithm.screening.find_proxy", lambda name: make):
        features = PlanFeatures(encoding, np.ones((4, 2)))
        make_screening(ScreenSettings(), encoding, lambda: features, lambda levels: [1.0], scores=2)
    assert told == [True, False, False]
