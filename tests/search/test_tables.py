"""Front tables: labels and belonging follow the search's own objectives."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.tracking import made_up_search
from search.tables import front_table, told_trials, with_confirmation


def trials() -> pd.DataFrame:
    """Three trials whose order by latency is not that by GFLOPs."""
    return pd.DataFrame(
        {
            "trial": [0, 1, 2],
            "plan": ["a", "b", "c"],
            "state": ["complete"] * 3,
            "violation": [0.0] * 3,
            "fid": [1.0, 2.0, 3.0],
            "gflops": [3.0, 1.0, 2.0],
            "latency_ms": [9.0, 5.0, 1.0],
        }
    )


def test_the_cheapest_point_is_the_cheapest_in_the_searchs_own_cost() -> None:
    by_flops = front_table(trials(), ("fid", "gflops"))
    assert by_flops["trial"].tolist() == [1, 0]
    assert "cheapest" in by_flops["label"].iloc[0]
    by_latency = front_table(trials(), ("fid", "latency_ms"))
    assert by_latency["trial"].tolist() == [2, 1, 0]
    assert "cheapest" in by_latency["label"].iloc[0]


def test_confirmation_judges_by_the_searchs_own_objectives() -> None:
    front = front_table(trials(), ("fid", "latency_ms"))
    scores = [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    confirmed = pd.DataFrame(
        [{"plan": p, "noise_seed": s, "images": 8, "fid": f + 0.1 * s} for p, f in scores for s in (1, 2)]
    )
    judged = with_confirmation(front, confirmed, ("fid", "latency_ms"))
    assert judged["belongs"].all()
    assert np.allclose(judged["fid_confirmed"], [3.15, 2.15, 1.15])
    assert with_confirmation(front, confirmed, ("fid", "gflops"))["belongs"].tolist() == [False, True, True]


def test_infeasible_trials_are_never_on_the_front() -> None:
    table = trials().assign(violation=[0.0, 0.5, 0.0])
    assert front_table(table, ("fid", "gflops"))["trial"].tolist() == [2, 0]


def test_a_table_older_than_its_newest_columns_tells_what_it_knows() -> None:
    table = made_up_search(5).trials
    newest = ["sampling_seconds", "features_seconds", "distance_seconds", "prefix_states", "prefix_mb", "device"]
    now, older = told_trials(table), told_trials(table.drop(columns=newest))
    assert set(now[3][1]) - set(older[3][1]) == set(newest)
    assert {key: value for key, value in now[3][1].items() if key not in newest} == older[3][1]
    assert now[3][0] == older[3][0]
