"""Check the reference point and the hypervolume of a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepfront.search.pareto import front_indices, hypervolume
from stepfront.search.study.budget import Limits
from tests.search.study.test_ledger import make_ledger, run, score


def test_the_reference_point_is_fixed_once(tmp_path: Path) -> None:
    ledger = run(make_ledger("sqlite", tmp_path), most=4)
    point = ledger.progress.reference_point()
    assert point == pytest.approx([1.1 * max(t.values[0] for t in ledger.trials), 1.05 * 30.0])
    assert run(ledger).progress.reference_point() == point
    assert (np.diff(ledger.progress.hypervolumes()) >= 0).all()


def test_the_reference_point_does_not_depend_on_which_initial_plan_comes_back_first() -> None:
    points = []
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 0, 3, 1]):
        ledger = make_ledger("memory", Path())
        asked = [ledger.ask() for _ in range(5)]
        for i in order:
            one = asked[i]
            assert one is not None
            missing = [number for number in range(4) if not ledger.trials[number].state.is_finished()]
            assert (ledger.progress.reference_point() is None) == bool(missing)
            ledger.tell(one.number, score(one), "w")
        points.append(ledger.progress.reference_point())
    assert points[0] == points[1] == points[2] is not None


def test_trials_that_break_a_constraint_add_no_hypervolume() -> None:
    ledger = run(make_ledger("memory", Path(), constraints=("gflops <= 12",), limits=Limits(trials=40)))
    reference = ledger.progress.reference_point()
    assert reference is not None
    kept = np.array([t.values for t in ledger.complete if t.values[1] <= 12])
    assert ledger.progress.hypervolumes()[-1] == pytest.approx(hypervolume(kept[front_indices(kept)], reference))
    assert (ledger.progress.front_scores()[:, 1] <= 12).all()
    assert any(t.values[1] > 12 for t in ledger.complete)


def test_growth_by_no_more_than_noise_does_not_count_for_patience() -> None:
    def stalled(spread: float, trials: int) -> bool:
        ledger = run(make_ledger("memory", Path(), limits=Limits(trials=30)))
        ledger.progress.expect_noise(spread)
        return ledger.progress.stalled(trials)

    progress = run(make_ledger("memory", Path(), limits=Limits(trials=30))).progress
    volumes = progress.hypervolumes()
    growing = max(trials for trials in range(1, 26) if volumes[-1] > volumes[-1 - trials])
    assert not stalled(0.0, growing)
    assert not stalled(1e-9, growing)
    assert stalled(10.0, growing)
    # In closed form: the front, each FID worse by the spread, against the volume of then.
    front, reference = progress.front_scores(), progress.reference_point()
    assert reference is not None
    for spread in (0.01, 0.1, 0.3):
        worse = front * [np.exp(spread), 1.0]
        assert stalled(spread, growing) == (hypervolume(worse, reference) <= volumes[-1 - growing])
    # What did not grow at all has stalled, whatever the noise.
    flat = [trials for trials in range(1, 26) if volumes[-1] == volumes[-1 - trials]]
    assert all(stalled(0.0, trials) and stalled(0.1, trials) for trials in flat[:2])
