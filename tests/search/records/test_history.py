"""The series of a search over its evaluations, in closed form."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stepfront.search.records.history import series_table
from stepfront.tables.search_tables import Snapshot


def snapshot(full_fid: float | None) -> Snapshot:
    trials = pd.DataFrame(
        {
            "trial": [0, 1, 2, 3, 4],
            "state": ["complete", "failed", "complete", "complete", "complete"],
            "fid": [5.0, np.nan, 9.0, 4.0, 5.0],
            "gflops": [8.0, np.nan, 1.0, 6.0, 7.0],
            "elapsed": [10.0, 15.0, 20.0, 40.0, 30.0],
        }
    )
    progress = pd.DataFrame({"evaluation": [1, 2, 3, 4], "trial": [0, 2, 4, 3], "seconds": [10.0, 20.0, 30.0, 40.0]})
    progress = progress.assign(hypervolume=[0.0, 1.0, 2.0, 3.0], front_size=1, best_fid=5.0, network_gflops=1.0)
    return Snapshot(trials, progress, trials, {"full": {"fid": full_fid}})


def test_the_cheapest_at_full_quality_counts_only_trials_as_good_as_full_width() -> None:
    assert list(series_table(snapshot(5.0))["gflops_at_full_width_fid"]) == [8.0, 8.0, 7.0, 6.0]
    assert list(series_table(snapshot(4.5))["gflops_at_full_width_fid"].isna()) == [True, True, True, False]
    assert series_table(snapshot(None))["gflops_at_full_width_fid"].isna().all()


def test_failures_and_pace_count_from_when_they_were_told() -> None:
    series = series_table(snapshot(5.0))
    assert list(series["failed"]) == [0, 1, 1, 1]
    assert list(series["trials_per_hour"]) == pytest.approx([360.0, 540.0, 480.0, 450.0])
    assert list(series["hypervolume"]) == [0.0, 1.0, 2.0, 3.0]
