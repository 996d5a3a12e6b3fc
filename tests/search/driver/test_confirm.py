"""Savings by confirmed scores."""

from __future__ import annotations

import pandas as pd

from stepfront.search.driver.confirm import savings


def test_the_saving_is_that_of_the_cheapest_point_by_the_searchs_own_cost() -> None:
    def scored(kind: str, plan: str, fids: list[float]) -> list[dict[str, object]]:
        costs = {"full": (4.0, 8.0), "few FLOPs": (1.0, 6.0), "quick": (2.0, 3.0)}[plan]
        base = {"kind": kind, "plan": plan, "gflops": costs[0], "latency_ms": costs[1]}
        return [base | {"noise_seed": seed, "fid": fid} for seed, fid in enumerate(fids)]

    confirmed = pd.DataFrame(
        scored("full", "full", [2.0, 2.1, 1.9])
        + scored("front", "few FLOPs", [2.0, 2.2, 1.9])
        + scored("front", "quick", [2.1, 2.1, 1.8])
    )
    rows = {"trial": [1, 2], "plan": ["few FLOPs", "quick"], "gflops": [1.0, 2.0], "latency_ms": [6.0, 3.0]}
    front = pd.DataFrame(rows | {"fid_confirmed": [2.0, 2.0], "fid_low": [1.8, 1.8], "fid_high": [2.2, 2.2]})
    by_flops, by_latency = savings(front, confirmed, "gflops"), savings(front, confirmed, "latency_ms")
    assert by_flops is not None
    assert by_latency is not None
    assert (by_flops["plan"], by_flops["flops_saved"]) == ("few FLOPs", 0.75)
    assert (by_latency["plan"], by_latency["latency_saved"]) == ("quick", 0.625)
