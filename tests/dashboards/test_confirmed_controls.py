"""The front against the controls by their means on fresh noise."""

from __future__ import annotations

import pandas as pd

from stepfront.dashboards.sections import confirmed_versus


def test_each_point_meets_the_best_control_that_costs_no_more() -> None:
    rows = [("front", "knee", 3, "p", 2.0, seed, fid) for seed, fid in ((1, 4.0), (2, 6.0))] + [
        ("control", label, None, plan, gflops, seed, fid)
        for label, plan, gflops, fids in (("monotone", "q", 2.0, (5.0, 7.0)), ("uniform", "r", 9.0, (1.0, 1.0)))
        for seed, fid in enumerate(fids, 1)
    ]
    confirm = pd.DataFrame(rows, columns=["kind", "label", "trial", "plan", "gflops", "noise_seed", "fid"])
    controls = pd.DataFrame({"plan": ["q", "r"], "method": ["monotone", "uniform"]})
    (found,) = confirmed_versus(confirm, controls).to_dict("records")
    assert (found["fid"], found["control"], found["control_fid"]) == (5.0, "monotone", 6.0)
    assert confirmed_versus(confirm[confirm["kind"] == "front"], controls).empty
    assert confirmed_versus(pd.DataFrame(), controls).empty


def test_a_point_that_is_a_control_itself_is_one_for_the_others() -> None:
    rows = [("front", 3, "10x1.00", 2.0, 4.0), ("front", 4, "p", 3.0, 3.5), ("control", -1, "q", 1.0, 6.0)]
    confirm = pd.DataFrame(rows, columns=["kind", "trial", "plan", "gflops", "fid"]).assign(label="monotone")
    controls = pd.DataFrame({"plan": ["10x1.00", "q"], "method": ["fewer_steps", "monotone"]})
    itself, other = confirmed_versus(confirm, controls).to_dict("records")
    assert (itself["control"], itself["control_fid"] - itself["fid"]) == ("fewer_steps", 0.0)
    assert (other["control"], other["control_fid"]) == ("fewer_steps", 4.0)
    assert confirmed_versus(confirm, controls.iloc[:0])["control_fid"].tolist() == [6.0, 6.0]
