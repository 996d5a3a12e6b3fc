"""Check that screening picks the child that adds most hypervolume, and only with a proxy that it trusts."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from stepfront.plugins import PROXIES
from stepfront.search.algorithm.proxies import ModelProxy, ProxyInputs, find_proxy
from stepfront.search.algorithm.screening import Screening, best_child, make_screening
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, PlanFeatures
from stepfront.search.config import ScreenSettings
from stepfront.search.genomes.encodings import Stages
from stepfront.search.pareto import expected_hypervolume_gains, front_indices, hypervolume


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
        self.running: list[FrozenTrial] = []

    def scores(self) -> np.ndarray:
        return np.ones((len(self.complete), 2))

    def front_scores(self) -> np.ndarray:
        return np.array([[3.0, 3.0]])

    def reference_point(self) -> list[float] | None:
        return [4.0, 4.0]

    @property
    def under_way(self) -> dict[int, FrozenTrial]:
        return {trial.number: trial for trial in self.running}


def one(plans: np.ndarray) -> np.ndarray:
    """Return the cost 1 of each plan."""
    return np.ones((len(plans), 1))


def by_sum(plans: np.ndarray) -> np.ndarray:
    """Return a cost of each plan that grows with its levels."""
    return 1.0 + plans.sum(axis=1, keepdims=True)


def levels_of(trial: FrozenTrial) -> np.ndarray:
    return np.array(trial.user_attrs["levels"])


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
    screening = Screening(FixedProxy(tau), one, levels_of, 0.5)
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
        screening = Screening(proxy, lambda plans: 2 * one(plans), levels_of, 0.5, acquisition=acquisition)
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
        screening = Screening(model, by_sum, levels_of, -1.0, acquisition="expected")
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
    screening = Screening(PartlyUnknown(scores), one, levels_of, 0.5)
    screening.watch(Progress(LEAST_TRIALS))
    assert screening([np.array([level]) for level in range(3)]) == chosen


def test_proxies_of_own_scores_are_told_so() -> None:
    encoding, told = Stages(4, (0.5, 1.0), False, 2), []

    def make(inputs: ProxyInputs) -> FixedProxy:
        told.append(inputs.of_fid)
        return FixedProxy(0.9)

    with patch("stepfront.search.algorithm.screening.find_proxy", lambda name: make):
        features = PlanFeatures(encoding, np.ones((4, 2)))
        make_screening(ScreenSettings(), encoding, lambda: features, one, scores=2)
    assert told == [True, False, False]


class ByLevel(FixedProxy):
    """A proxy that expects an FID of 1.0 of level 0 and of 2.5 of level 1."""

    def predict(self, children: object) -> np.ndarray:
        return np.where(np.array(children)[:, 0] == 0, 1.0, 2.5)


def test_of_two_equal_plans_the_one_that_is_not_under_way_is_chosen() -> None:
    # Beside the front (3, 3), below (4, 4), the plans (1.0, 2.5) and (2.5, 1.0) add 3 * 1.5 - 1 each.
    plans = [np.array([0]), np.array([1])]
    screening, progress = Screening(ByLevel(0.9), lambda p: np.where(p == 0, 2.5, 1.0), levels_of, 0.5), Progress(20)
    screening.watch(progress)
    assert screening(plans) == 0
    for level in (0, 1):
        progress.running = [create_trial(state=TrialState.RUNNING, user_attrs={"levels": [level]})]
        progress.running[0].number = level
        assert screening(plans) == 1 - level
    progress.running = []  # it failed
    assert screening(plans) == 0


@pytest.mark.parametrize(("fid_limit", "chosen"), [(np.inf, 1), (2.0, 0)])
def test_a_plan_under_way_that_is_expected_to_break_a_constraint_hides_no_gain(fid_limit: float, chosen: int) -> None:
    """Nothing will be on the front where it is expected, so plans that it would dominate are still worth a trial."""
    # Level 2 is under way.  Beside (3, 3), below (4, 4), levels 0 and 1 add 2.2 * 2.2 - 1 = 3.84 and 3 * 1.5 - 1 = 3.5.
    # With level 2 on the front, they would add 0.7 * 2.2 = 1.54 and 1.5 * 1.5 = 2.25.
    expected, cost = np.array([1.8, 1.0, 2.5]), np.array([[1.8], [2.5], [0.5]])

    class OfLevels(FixedProxy):
        def predict(self, children: object) -> np.ndarray:
            return expected[np.array(children)[:, 0]]

    bounds = np.array([[-np.inf, fid_limit], [-np.inf, np.inf]])
    screening = Screening(OfLevels(0.9), lambda plans: cost[plans[:, 0]], levels_of, 0.5, bounds=bounds)
    progress = Progress(20)
    progress.running = [create_trial(state=TrialState.RUNNING, user_attrs={"levels": [2]})]
    screening.watch(progress)
    assert screening([np.array([0]), np.array([1])]) == chosen


@pytest.mark.parametrize("acquisition", ["optimistic", "expected"])
def test_a_child_that_is_expected_to_break_a_constraint_gains_nothing(acquisition: str) -> None:
    class Sure(KnownDistribution):
        """A model that is sure of both children."""

        def distribution(self, children: object) -> tuple[np.ndarray, np.ndarray]:
            return np.log([1.5, 2.5]), np.full(2, 1e-3)

    chosen = []
    for limit in (3.0, 2.0):
        bounds = np.array([[-np.inf, limit], [-np.inf, np.inf]])
        screening = Screening(
            Sure(), lambda plans: np.where(plans == 0, 3.5, 0.1), levels_of, 0.5, (), acquisition, bounds
        )
        screening.watch(Progress(LEAST_TRIALS))
        chosen.append(screening([np.array([0]), np.array([1])]))
    assert chosen == [1, 0]


def test_before_any_plan_keeps_the_constraints_the_nearest_to_them_is_chosen() -> None:
    bounds = np.array([[-np.inf, 2.0], [-np.inf, np.inf]])
    expected, costs, nothing = (
        np.array([np.nan, 3.5, 2.5, 3.0]),
        np.array([[0.1], [0.1], [3.9], [0.1]]),
        np.zeros((0, 2)),
    )
    assert best_child(expected, costs, nothing, (4.0, 4.0)) == 3
    assert best_child(expected, costs, nothing, (4.0, 4.0), bounds) == 2
    assert best_child(np.array([2.5, 1.9]), np.array([[0.1], [3.9]]), nothing, (4.0, 4.0), bounds) == 1


@pytest.mark.parametrize(
    ("acquisition", "deviation", "chosen"),
    # Unsure, the children gain 0.27, 0.05 and 0.77: the second is the nearest and costs most.
    [("optimistic", 1e-3, 1), ("expected", 1e-3, 1), ("expected", 0.3, 2)],
)
def test_before_any_plan_keeps_the_constraints_a_model_that_is_sure_chooses_the_nearest(
    acquisition: str, deviation: float, chosen: int
) -> None:

    class Of(KnownDistribution):
        def distribution(self, children: object) -> tuple[np.ndarray, np.ndarray]:
            return np.log([3.5, 2.5, 3.0]), np.full(3, deviation)

        def predict(self, children: object) -> np.ndarray:
            return np.exp(np.subtract(*self.distribution(children)))

    class Empty(Progress):
        def front_scores(self) -> np.ndarray:
            return np.zeros((0, 2))

    bounds, costs = np.array([[-np.inf, 2.0], [-np.inf, np.inf]]), np.array([[0.1], [3.9], [0.1]])
    screening = Screening(Of(), lambda plans: costs, levels_of, 0.5, (), acquisition, bounds)
    screening.watch(Empty(LEAST_TRIALS))
    assert screening([np.array([level]) for level in range(3)]) == chosen


@pytest.mark.parametrize(("trials", "under_way", "chosen"), [(6, 0, 0), (6, 1, 1), (5, 1, 0), (LEAST_TRIALS, 0, 1)])
def test_with_plans_under_way_fewer_trials_are_enough(trials: int, under_way: int, chosen: int) -> None:
    screening, progress = (
        Screening(ByLevel(0.9), lambda p: np.where(p == 0, 3.9, 1.0), levels_of, 0.5),
        Progress(trials),
    )
    progress.running = [create_trial(state=TrialState.RUNNING, user_attrs={"levels": [0]})] * under_way
    screening.watch(progress)
    assert screening([np.array([0]), np.array([1])]) == chosen


@pytest.mark.parametrize("earlier", [False, True])
def test_a_model_that_counts_a_plan_as_evaluated_expects_nothing_more_of_it(earlier: bool) -> None:
    encoding, gap = Stages(4, (0.5, 1.0), False, 4), np.array([[1.0, 0.0]] * 4)
    models = (lambda asked: -np.asarray(asked).sum(axis=1) / 4,) if earlier else ()
    model = ModelProxy(PlanFeatures(encoding, gap, models), lambda t: encoding.unpack(t.user_attrs["genome"]))
    progress = Learning(encoding, 9)
    progress.complete = [trial for trial in progress.complete if "learnt" not in trial.user_attrs]
    known = {trial.user_attrs["genome"] for trial in progress.complete}
    plans = [np.array(bits) for bits in np.ndindex(2, 2, 2, 2) if encoding.pack(np.array(bits)) not in known]
    model.learn(progress.complete, progress.scores())
    costs, reference = by_sum(np.array(plans))[:, 0], [6.0, 6.0]

    def gains(front: np.ndarray) -> np.ndarray:
        return expected_hypervolume_gains(*model.distribution(plans), costs, front, reference)

    front = np.array([[5.0, 5.0]])
    before, (mean, deviation) = gains(front), model.distribution(plans)
    first = int(np.argmax(before))
    model.believe([plans[first]])
    after = gains(np.vstack([front, [np.exp(mean[first]), costs[first]]]))
    np.testing.assert_allclose(model.distribution(plans)[0], mean, rtol=1e-9)
    assert (model.distribution(plans)[1] <= deviation + 1e-12).all()
    assert after[first] < 0.05 * before[first]
    assert (after <= before + 1e-12).all()


def test_the_plans_of_a_packet_are_those_of_largest_gain_though_few_gains_are_computed_again() -> None:
    """Beside it, a screening without a memory computes every gain for each plan."""
    encoding = Stages(8, (0.5, 1.0), False, 8)
    gap = np.outer(np.linspace(0.5, 2.0, 8), [1.0, 0.0])
    every = np.array(list(np.ndindex(*[2] * 8)))
    draws, computed = np.random.default_rng(0).permutation(len(every)), {True: 0, False: 0}

    class Searched(Learning):
        def __init__(self) -> None:
            Progress.__init__(self, 0)
            self.complete = [trial_of(levels) for levels in every[draws[:20]]]

    def trial_of(levels: np.ndarray) -> FrozenTrial:
        score = [9.0 - float(levels @ np.linspace(0.5, 1.5, 8)), 1.0 + float(levels.sum())]
        return create_trial(values=score, user_attrs={"genome": encoding.pack(levels), "levels": levels.tolist()})

    def packet(remembers: bool) -> list[bytes]:
        class Counted(ModelProxy):
            def distribution(self, plans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                computed[remembers] += len(plans)
                return super().distribution(plans)

        progress = Searched()
        model = Counted(PlanFeatures(encoding, gap), lambda trial: encoding.unpack(trial.user_attrs["genome"]))
        screening = Screening(model, by_sum, levels_of, -1.0, acquisition="expected")
        screening.watch(progress)
        left, chosen = list(every[draws[20:]]), [every[0]]
        for number in range(8):
            running = create_trial(state=TrialState.RUNNING, user_attrs={"levels": chosen[-1].tolist()})
            running.number = number
            progress.running.append(running)
            if not remembers:
                screening._gains.forget()
            chosen.append(left.pop(screening(left)))
        return [levels.tobytes() for levels in chosen]

    assert packet(True) == packet(False)
    assert computed[False] == sum(236 - chosen for chosen in range(8))
    assert computed[True] < computed[False] / 3
