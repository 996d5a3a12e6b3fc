"""The front against the baselines by their means on held-out noise seeds."""

from __future__ import annotations

import pandas as pd

from stepfront.dashboards.sections.baselines import confirmed_versus


def test_each_point_meets_the_best_baseline_that_costs_no_more() -> None:
    rows = [("front", "knee", 3, "p", 2.0, seed, fid) for seed, fid in ((1, 4.0), (2, 6.0))] + [
        ("baseline", label, None, plan, gflops, seed, fid)
        for label, plan, gflops, fids in (("monotone", "q", 2.0, (5.0, 7.0)), ("uniform", "r", 9.0, (1.0, 1.0)))
        for seed, fid in enumerate(fids, 1)
    ]
    confirm = pd.DataFrame(rows, columns=["kind", "label", "trial", "plan", "gflops", "noise_seed", "fid"])
    baselines = pd.DataFrame({"plan": ["q", "r"], "method": ["monotone", "uniform"]})
    (found,) = confirmed_versus(confirm, baselines).to_dict("records")
    assert (found["fid"], found["baseline"], found["baseline_fid"]) == (5.0, "monotone", 6.0)
    assert confirmed_versus(confirm[confirm["kind"] == "front"], baselines).empty
    assert confirmed_versus(pd.DataFrame(), baselines).empty


def test_a_point_that_is_a_baseline_itself_is_one_for_the_others() -> None:
    rows = [("front", 3, "10x1.00", 2.0, 4.0), ("front", 4, "p", 3.0, 3.5), ("baseline", -1, "q", 1.0, 6.0)]
    confirm = pd.DataFrame(rows, columns=["kind", "trial", "plan", "gflops", "fid"]).assign(label="monotone")
    baselines = pd.DataFrame({"plan": ["10x1.00", "q"], "method": ["fewer_steps", "monotone"]})
    itself, other = confirmed_versus(confirm, baselines).to_dict("records")
    assert (itself["baseline"], itself["baseline_fid"] - itself["fid"]) == ("fewer_steps", 0.0)
    assert (other["baseline"], other["baseline_fid"]) == ("fewer_steps", 4.0)
    assert confirmed_versus(confirm, baselines.iloc[:0])["baseline_fid"].tolist() == [6.0, 6.0]
    # Nor is one that breaks a constraint of the search.
    breaking = baselines.assign(violation=[0.5, 0.0], sampler="")
    assert confirmed_versus(confirm, breaking)["baseline_fid"].tolist() == [6.0, 6.0]
    # The same runs on a sampler that was fitted to them are no baseline.
    fitted = confirm.assign(sampler=["fit 1a2b", "", ""])
    assert set(confirmed_versus(fitted, baselines)["baseline_fid"]) == {6.0}
