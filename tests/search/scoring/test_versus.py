"""A front against its baselines: the best baseline that costs no more, by the search's own cost."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stepfront.search.scoring.versus import methods_table, versus


def test_versus_takes_the_best_baseline_that_costs_no_more() -> None:
    front = pd.DataFrame({"trial": [1, 2], "gflops": [1.0, 3.0], "fid": [5.0, 2.0]})
    baselines = pd.DataFrame(
        {"method": ["a", "b", "c"], "plan": ["p", "q", "r"], "gflops": [2.0, 3.0, 4.0], "fid": [4.0, 3.0, 1.0]}
    )
    table = versus(front, baselines)
    assert table["baseline_method"].tolist()[1] == "b"
    assert np.isnan(table["baseline_fid"].iloc[0])


def test_the_best_baseline_is_held_against_the_searchs_own_cost() -> None:
    front = pd.DataFrame({"trial": [1], "gflops": [1.0], "latency_ms": [5.0], "fid": [3.0]})
    columns = {"method": ["cheap", "quick"], "plan": ["a", "b"], "gflops": [0.9, 2.0], "latency_ms": [9.0, 4.0]}
    baselines = pd.DataFrame(columns | {"fid": [4.0, 3.5]})
    assert versus(front, baselines, "gflops")["baseline_method"].tolist() == ["cheap"]
    assert versus(front, baselines, "latency_ms")["baseline_method"].tolist() == ["quick"]


def test_the_searchs_network_work_includes_repeats_and_the_fits_in_its_pauses() -> None:
    rows = pd.DataFrame({"fid": [2.0], "gflops": [3.0], "images": [10], "violation": [0.0], "method": ["full"]})
    facts = {"objectives": ["fid", "gflops"], "reference_point": [9.0, 9.0], "noise": {"network_gflops": 7.0}}
    facts["fit_rounds"] = [{"at": 4, "points": [0], "tflops": 0.5}, {"at": 8, "points": [], "tflops": None}]
    table = methods_table(rows, rows, facts).set_index("method")["network_gflops"]
    assert table.to_dict() == {"search": 30.0 + 7.0 + 500.0, "full": 30.0}
