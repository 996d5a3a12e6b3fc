"""Which front points differ from a cheaper one by no more than noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stepfront.search.objectives import Objectives
from stepfront.search.records.score_noise import ScoreNoise
from stepfront.search.records.within_noise import differing_share, mark_by_confirmation, mark_within_noise
from stepfront.trainers.variant import runs_text


def front() -> pd.DataFrame:
    """Four points, cheapest first, of which each differs from the one before at one step of four."""
    widths = [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0], [0.5, 1.0, 1.0, 1.0]]
    table = pd.DataFrame({"trial": [7, 3, 9, 4], "plan": map(runs_text, widths), "fid": [2.0, 1.95, 1.5, 1.49]})
    return table.assign(gflops=[1.0, 2.0, 3.0, 4.0], widths=widths, times=[[3.0, 2.0, 1.0, 0.0]] * 4)


def noise(spread: float) -> ScoreNoise:
    """Noise whose difference at one step of four is spread / 2."""
    difference = spread * np.array([-1, 1, -1, 1]) * np.sqrt(3) / 2
    fid = (tuple(map(float, np.exp(difference))), (1.0,) * 4)
    return ScoreNoise(("full", "narrow"), (1, 2, 3, 4), 512, fid, (1.0, 1.0))


def test_points_within_noise_have_the_cheapest_equal_point() -> None:
    assert noise(0.1).difference == pytest.approx(0.1)
    assert list(mark_within_noise(front(), noise(0.1), "gflops")["within_noise"]) == [-1, 7, -1, 9]
    # 30 % cheaper in FID is noise, too, where seeds move differences that far.
    assert list(mark_within_noise(front(), noise(0.4), "gflops")["within_noise"]) == [-1, 7, 7, 7]
    assert list(mark_within_noise(front(), noise(1e-4), "gflops")["within_noise"]) == [-1] * 4


def test_without_noise_no_point_is_marked_and_the_order_of_rows_does_not_matter() -> None:
    assert list(mark_within_noise(front(), None, "gflops")["within_noise"]) == [-1] * 4
    turned = mark_within_noise(front().iloc[::-1], noise(0.1), "gflops")
    assert dict(zip(turned["trial"], turned["within_noise"], strict=True)) == {7: -1, 3: 7, 9: -1, 4: 9}


def test_plans_of_other_times_differ_at_every_step() -> None:
    first, second = front().iloc[0], front().iloc[1]
    assert differing_share(first, second) == 0.25
    assert differing_share(first, first) == 0
    second = second.copy()
    second["times"] = [3.0, 2.5, 1.0, 0.0]
    assert differing_share(first, second) == 1
    second["times"], second["widths"] = [3.0, 1.0], [0.5, 0.5]
    assert differing_share(first, second) == 1
    another = first.copy()
    another["solver"] = "another"
    assert differing_share(first, another) == 1


def test_confirmed_points_are_judged_by_their_differences_seed_by_seed() -> None:
    scores = {"a": [2.0, 3.0, 4.0], "b": [2.1, 2.9, 4.1], "c": [1.0, 2.0, 3.0], "d": [0.9, 1.89, 2.88]}
    trials = dict(zip(scores, front()["trial"], strict=True))
    by_trial = {trials[plan]: pd.DataFrame({"noise_seed": [1, 2, 3], "fid": fid}) for plan, fid in scores.items()}
    marked = mark_by_confirmation(front().assign(within_noise=-1), by_trial, "gflops")
    assert list(marked["within_noise"]) == [-1, 7, -1, -1]  # d is better than c on each seed, by little
    del by_trial[trials["d"]]
    mixed = mark_by_confirmation(front().assign(within_noise=5), by_trial, "gflops")
    assert list(mixed["within_noise"]) == [-1, 7, -1, 5]  # d, not confirmed, keeps what the search says
    unchanged = mark_by_confirmation(front().assign(within_noise=5), {}, "gflops")
    assert list(unchanged["within_noise"]) == [5] * 4


def test_a_cheaper_point_that_is_worse_in_another_objective_equals_none() -> None:
    objectives = Objectives(("fid", "gflops", "mine"), frozenset({"mine"}))
    table = front().assign(mine=[1.0, 9.0, 2.0, 2.0])
    others = objectives.others(objectives.minimised(table))
    assert others.tolist() == [[-1.0], [-9.0], [-2.0], [-2.0]]
    assert list(mark_within_noise(table, noise(0.1), "gflops", others)["within_noise"]) == [-1, -1, -1, 9]
    assert list(mark_within_noise(table, noise(0.4), "gflops", others)["within_noise"]) == [-1, -1, 3, 3]
    equal = pd.DataFrame({"noise_seed": [1, 2, 3], "fid": [2.0, 2.1, 1.9]})
    by_trial = {7: equal, 3: equal, 4: equal}
    marked = mark_by_confirmation(table.assign(within_noise=-1), by_trial, "gflops", others[[0, 1, 3]])
    assert list(marked["within_noise"]) == [-1, -1, -1, 3]
