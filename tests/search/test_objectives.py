"""Objectives of a user's own: settings, direction, front, hypervolume, and screening with several proxies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.trial import FrozenTrial, create_trial

from stepfront.errors import InputError
from stepfront.search.algorithm.screening import Screening
from stepfront.search.algorithm.surrogate import LEAST_TRIALS
from stepfront.search.config import settings_from
from stepfront.search.objectives import Objectives
from stepfront.search.pareto import hypervolume
from stepfront.search.records.front import front_table, with_confirmation
from stepfront.search.study.budget import Limits
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.views import recorded_trials, trials_table
from stepfront.trainers.diffusion.plan import Plan
from tests.search.study.test_ledger import ENCODING, make_ledger, score

OBJECTIVES = Objectives(("fid", "gflops", "accuracy"), frozenset({"accuracy"}))
ACCURACY = {"name": "accuracy", "function": "mine:accuracy", "goal": "higher"}


def plan_of(genome: str) -> Plan:
    return Plan(tuple(range(20, 0, -1)), ENCODING.step_widths(ENCODING.unpack(genome)))


def searched(kind: str, directory: Path, ledger: Ledger | None = None, most: int = 99) -> Ledger:
    """Search with an accuracy that is higher for narrow plans, against what FID asks for."""
    limits = Limits(trials=24)
    ledger = ledger or make_ledger(kind, directory, objectives=OBJECTIVES, limits=limits)
    for _ in range(most):
        if (asked := ledger.ask()) is None:
            break
        found = score(asked)
        levels = ENCODING.unpack(asked.genome)
        ledger.tell(asked.number, replace(found, scores={"accuracy": float((levels[:3] == 0).mean())}), "w")
    return ledger


def test_three_objectives_make_a_front_and_a_hypervolume() -> None:
    ledger = searched("memory", Path())
    table = trials_table(ledger, plan_of)
    values = np.array([trial.values for trial in ledger.complete])
    assert (table["accuracy"].to_numpy() == -values[:, 2]).all()  # the study minimises, the table has what was returned
    better = (values[:, None] <= values[None]).all(-1) & (values[:, None] < values[None]).any(-1)
    expected = set(np.flatnonzero(~better.any(axis=0)))
    front = front_table(table, OBJECTIVES)
    assert {(r.fid, r.gflops, r.accuracy) for r in front.itertuples()} == {
        (values[i, 0], values[i, 1], -values[i, 2]) for i in expected
    }
    point = ledger.progress.reference_point()
    assert point is not None
    assert point[2] == max(values[:4, 2]) + max(0.1 * abs(max(values[:4, 2])), 1e-9)
    assert ledger.progress.hypervolumes()[-1] == pytest.approx(hypervolume(values, point))


@pytest.mark.parametrize("stop", [3, 13])
def test_an_interrupted_search_of_three_objectives_ends_with_the_same_trials(stop: int, tmp_path: Path) -> None:
    whole = searched("memory", Path())
    searched("sqlite", tmp_path, most=stop).close()
    resumed = searched("sqlite", tmp_path)
    assert [t.values for t in resumed.trials] == [t.values for t in whole.trials]


def test_a_study_is_rebuilt_from_the_table_with_its_own_scores() -> None:
    ledger = searched("memory", Path())
    table = trials_table(ledger, plan_of)
    again = make_ledger("memory", Path(), objectives=OBJECTIVES)
    again.restore(recorded_trials(table))
    pd.testing.assert_frame_equal(trials_table(again, plan_of), table)


def test_the_reference_point_waits_for_the_first_trials_that_are_asked_one_by_one() -> None:
    ledger = make_ledger("memory", Path())
    for number in range(5):
        assert (ledger.progress.reference_point() is None) == (number < 4)
        asked = ledger.ask()
        assert asked is not None
        ledger.tell(asked.number, score(asked), "w")


def test_confirmed_scores_of_a_users_own_decide_what_stays_on_the_front() -> None:
    trials = trials_table(searched("memory", Path()), plan_of)
    front = front_table(trials, OBJECTIVES).drop_duplicates("gflops", ignore_index=True)
    rows = [
        {"plan": plan, "sampler": "", "noise_seed": seed, "images": 8, "fid": 5.0, "accuracy": i + seed}
        for i, plan in enumerate(front["plan"])
        for seed in (0, 2)
    ]
    judged = with_confirmation(front, pd.DataFrame(rows), OBJECTIVES)
    assert judged["accuracy_confirmed"].tolist() == [i + 1.0 for i in range(len(front))]
    assert (judged["accuracy_low"] < judged["accuracy_confirmed"]).all()
    # At equal FID, a more expensive point stays only for its higher accuracy: all do.
    assert judged["belongs"].all()
    worse = pd.DataFrame(rows).assign(accuracy=lambda table: -table["accuracy"])
    assert with_confirmation(front, worse, OBJECTIVES)["belongs"].tolist() == [True] + [False] * (len(front) - 1)


class Fixed:
    """A proxy that expects given values, and notes the column that it learns from."""

    def __init__(self, expected: list[float], tau: float = 1.0) -> None:
        self._expected, self._tau = np.array(expected), tau
        self.seen: list[float] = []

    def learn(self, trials: object, scores: np.ndarray) -> float:
        self.seen = scores[:, 0].tolist()
        return self._tau

    def predict(self, children: object) -> np.ndarray:
        return self._expected


class Progress:
    """A search of three objectives."""

    complete = [create_trial(values=[1.0, 2.0, 3.0]) for _ in range(LEAST_TRIALS)]  # noqa: RUF012
    under_way: dict[int, FrozenTrial] = {}  # noqa: RUF012

    def scores(self) -> np.ndarray:
        return np.array([trial.values for trial in self.complete])

    def front_scores(self) -> np.ndarray:
        return np.array([[1.0, 2.0, 3.0]])

    def reference_point(self) -> list[float]:
        return [4.0, 4.0, 4.0]


def test_constraints_bound_the_objectives_as_they_are_minimised() -> None:
    objectives = Objectives(("fid", "gflops", "accuracy"), frozenset({"accuracy"}))
    bounds = objectives.bounds(["fid <= 5.0", "fid <= 4.0", "accuracy >= 0.5", "accuracy <= 0.9", "latency_ms <= 3"])
    inf = np.inf
    np.testing.assert_allclose(bounds, [[-inf, 4.0], [-inf, inf], [-0.9, -0.5]], rtol=1e-8)
    # As for a trial, a value within rounding of a bound is at the bound.
    assert bounds[2, 1] > -0.5
    assert bounds[0, 1] > 4.0


@pytest.mark.parametrize(("tau", "chosen"), [(1.0, 1), (0.2, 0)])
def test_each_score_has_a_proxy_of_its_own_and_all_must_be_trusted(tau: float, chosen: int) -> None:
    fid, accuracy = Fixed([1.0, 1.0]), Fixed([3.0, 1.0], tau)
    screening = Screening(
        fid, lambda plans: np.full((len(plans), 1), 2.0), lambda trial: np.array([0]), 0.5, [accuracy]
    )
    screening.watch(Progress())
    assert screening([np.array([0]), np.array([1])]) == chosen
    assert set(fid.seen) == {1.0}
    assert set(accuracy.seen) == {3.0}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scores": [ACCURACY, ACCURACY]}, "the name 'accuracy' is given 2 times"),
        ({"scores": [ACCURACY | {"name": "kid"}]}, "'kid' needs the column 'kid', which the tables have"),
        ({"scores": [ACCURACY | {"name": "second"}]}, "'second' needs the column 'second_confirmed', which the tables"),
        ({"scores": [ACCURACY, ACCURACY | {"name": "accuracy_low"}]}, "'accuracy_low' and 'accuracy' both need"),
        ({"scores": [ACCURACY | {"name": "is"}]}, "the name 'is' is a keyword of Python"),
        ({"scores": [ACCURACY | {"function": "accuracy"}]}, "unknown score 'accuracy'; possible: your own function as"),
        ({"scores": [ACCURACY | {"goal": "max"}]}, "goal"),
        (
            {"scores": [ACCURACY | {"function": "kid"}]},
            "a lower KID is better; give 'accuracy' the goal lower",
        ),
        ({"scores": [ACCURACY | {"name": f"s{i}"} for i in range(4)]}, r"6 objectives \(fid, .*at most 5 are possible"),
        ({"evaluation": {"constraints": ["sharpness <= 2"]}}, "constraints look like 'gflops <= 2.0', over fid, gflop"),
    ],
)
def test_scores_that_can_be_no_objective_are_refused_in_one_line(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        settings_from(given)
    assert "\n" not in str(caught.value)


def test_settings_say_which_scores_are_objectives() -> None:
    late = ACCURACY | {"name": "late", "use": "confirm"}
    settings = settings_from({"scores": [ACCURACY, late], "evaluation": {"constraints": ["accuracy >= 0.5"]}})
    assert Objectives.of_settings(settings) == OBJECTIVES
    facts = {"objectives": ["fid", "gflops", "accuracy"], "scores": [ACCURACY]}
    assert Objectives.of_facts(facts) == OBJECTIVES
