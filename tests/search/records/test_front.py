"""Front tables: labels and belonging follow the search's own objectives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stepfront.search.objectives import Objectives
from stepfront.search.records.front import front_table, mark_used, read_confirmed, with_confirmation
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import CONFIRM


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
    by_flops = front_table(trials(), Objectives(("fid", "gflops")))
    assert by_flops["trial"].tolist() == [1, 0]
    assert "cheapest" in by_flops["label"].iloc[0]
    by_latency = front_table(trials(), Objectives(("fid", "latency_ms")))
    assert by_latency["trial"].tolist() == [2, 1, 0]
    assert "cheapest" in by_latency["label"].iloc[0]


def test_confirmation_judges_by_the_searchs_own_objectives() -> None:
    front = front_table(trials(), Objectives(("fid", "latency_ms")))
    scores = [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    confirmed = pd.DataFrame(
        [{"plan": p, "noise_seed": s, "images": 8, "fid": f + 0.1 * s} for p, f in scores for s in (1, 2)]
    )
    judged = with_confirmation(front, confirmed, Objectives(("fid", "latency_ms")))
    assert judged["belongs"].all()
    assert np.allclose(judged["fid_confirmed"], [3.15, 2.15, 1.15])
    assert with_confirmation(front, confirmed, Objectives(("fid", "gflops")))["belongs"].tolist() == [False, True, True]


def test_infeasible_trials_are_never_on_the_front() -> None:
    table = trials().assign(violation=[0.0, 0.5, 0.0])
    assert front_table(table, Objectives(("fid", "gflops")))["trial"].tolist() == [2, 0]


def test_front_and_report_use_the_number_of_images_that_most_plans_share_and_of_several_the_largest() -> None:
    def used(scores: dict[int, str]) -> set[int]:
        rows = [{"images": count, "plan": plan, "noise_seed": 1} for count, plans in scores.items() for plan in plans]
        table = mark_used(pd.DataFrame(rows))
        assert len(table) == len(rows)
        return set(table.loc[table["used"], "images"])

    assert used({1024: "abc", 10_000: "abc"}) == {10_000}
    assert used({1024: "abc", 512: "abc"}) == {1024}
    assert used({1024: "abcd", 10_000: "abc"}) == {1024}  # d came later, and has no dear score to be held against
    assert used({64: "a"}) == {64}


def test_a_confirmed_front_has_the_scores_beside_fid() -> None:
    front = front_table(trials(), Objectives(("fid", "gflops")))
    rows = [
        {"plan": "b", "noise_seed": seed, "images": 8, "fid": 2.0, "kid": kid, "precision": 0.5, "recall": 0.25 * seed}
        | {"real_images": real}
        for seed, kid, real in ((1, 0.1, 60), (2, 0.3, 60), (3, np.nan, 0))  # the third is of an older confirmation
    ]
    judged = with_confirmation(front, pd.DataFrame(rows), Objectives(("fid", "gflops"))).set_index("plan")
    point = judged.loc["b"]
    assert (point["kid"], point["precision"], point["recall"]) == pytest.approx((0.2, 0.5, 0.375))
    half = 12.7062 * 0.1  # Student's t of one degree of freedom times the standard error of the mean
    assert (point["kid_low"], point["kid_high"]) == pytest.approx((0.2 - half, 0.2 + half), rel=1e-4)
    assert judged.loc["a", ["kid", "kid_low", "kid_high", "precision", "recall"]].isna().all()


def test_a_confirmed_front_has_the_mean_of_fid_infinity_where_it_was_computed() -> None:
    front = front_table(trials(), Objectives(("fid", "gflops")))
    rows = [{"plan": "b", "noise_seed": s, "images": 8, "fid": 2.0, "fid_infinity": 1.0 + s} for s in (0.0, 0.5)]
    judged = with_confirmation(front, pd.DataFrame(rows), Objectives(("fid", "gflops"))).set_index("plan")
    assert judged.loc["b", "fid_infinity"] == 1.25
    assert np.isnan(judged.loc["a", "fid_infinity"])


def test_confirmed_scores_of_an_older_search_are_read(tmp_path: Path) -> None:
    older = pd.DataFrame([{"plan": "b", "noise_seed": s, "images": 8, "fid": 2.0 + s, "kind": "front"} for s in (1, 2)])
    older = older.assign(fid_search=1.9)
    write_table(older, tmp_path / CONFIRM)
    table = read_confirmed(tmp_path)
    assert table is not None
    assert table["used"].all()
    assert (table["real_images"] == 0).all()
    objectives = Objectives(("fid", "gflops"))
    judged = with_confirmation(front_table(trials(), objectives), table, objectives).set_index("plan")
    assert judged.loc["b", "fid_confirmed"] == 3.5
    assert np.isnan(judged.loc["b", "kid"])
