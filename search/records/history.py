"""Follow a search over its evaluations: the series that MLflow and Prometheus draw over time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stepfront.tables.search_tables import Snapshot


def series_table(snapshot: Snapshot) -> pd.DataFrame:
    """Return one row per complete trial, in the order of their results.

    Columns: evaluation, hypervolume, front_size, best_fid, network_gflops; `gflops_at_full_width_fid`, the least cost
    of the trials so far that score at least as well as full width at every step (NaN where none does, or full width has
    no score); `failed`, the number of failed trials by then; and `trials_per_hour` since the start, failed ones
    included.
    """
    progress = snapshot.progress
    columns = ["evaluation", "hypervolume", "front_size", "best_fid", "network_gflops"]
    scores = snapshot.trials.set_index("trial").loc[progress["trial"], ["fid", "gflops"]]
    full = (snapshot.facts.get("full") or {}).get("fid")
    good = scores["gflops"].where(scores["fid"] <= (np.nan if full is None else full))
    failed = np.sort(snapshot.trials.loc[snapshot.trials["state"] == "failed", "elapsed"].to_numpy(dtype=np.float64))
    seconds = progress["seconds"].to_numpy(dtype=np.float64)
    failures = np.searchsorted(failed, seconds, side="right")
    return progress[columns].assign(
        gflops_at_full_width_fid=good.fillna(np.inf).cummin().replace(np.inf, np.nan).to_numpy(),
        failed=failures,
        trials_per_hour=3600 * (progress["evaluation"] + failures) / np.maximum(seconds, 1e-3),
    )
