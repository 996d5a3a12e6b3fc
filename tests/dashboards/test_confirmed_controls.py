"""The front against the controls by their means on fresh noise."""

from __future__ import annotations

import pandas as pd

from dashboards.sections import confirmed_versus


def test_each_point_meets_the_best_control_that_costs_no_more() -> None:
    rows = [("front", "knee", 3, "p", 2.0, seed, fid) for seed, fid in ((1, 4.0), (2, 6.0))] + [
        ("control", label, None, plan, gflops, seed, fid)
        for label, plan, gflops, fids in (("monotone", "q", 2.0, (5.0, 7.0)), ("uniform", "r", 9.0, (1.0, 1.0)))
        for seed, fid in enumerate(fids, 1)
    ]
    confirm = pd.DataFrame(rows, columns=["kind", "label", "trial", "plan", "gflops", "noise_seed", "fid"])
    (found,) = confirmed_versus(confirm).to_dict("records")
    assert (found["fid"], found["control"], found["control_fid"]) == (5.0, "monotone", 6.0)
    assert confirmed_versus(confirm[confirm["kind"] == "front"]).empty
    assert confirmed_versus(pd.DataFrame()).empty
