"""A running search for Prometheus: a snapshot in; gauges on Ray's own metrics endpoint out.

Ray exports them as `ray_stepfront_...` on each node's metrics port; dashboards/grafana/ draws them beside Ray's own.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from search.series import series_table
from search.tables import Snapshot

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

RECENT = 20

GAUGES = {
    "stepfront_evaluations": "trials with a score",
    "stepfront_failed": "trials without one",
    "stepfront_hypervolume": "hypervolume of the front",
    "stepfront_front_size": "points on the front",
    "stepfront_best_fid": "best FID so far",
    "stepfront_gflops_at_full_quality": "GFLOPs of the cheapest trial that scores as well as full width",
    "stepfront_trials_per_hour": "finished trials an hour since the search began",
    "stepfront_evaluation_seconds": f"mean seconds of the last {RECENT} evaluations",
    "stepfront_mlflow_waiting": "trials that MLflow does not hold yet",
}
"""Every gauge and what it says; each has the tag `search`, the search's name."""


def gauge_values(snapshot: Snapshot, waiting: int) -> dict[str, float]:
    """The value of each gauge; those that have none yet are left out."""
    series = series_table(snapshot)
    last = series.iloc[-1]
    complete = snapshot.trials[snapshot.trials["state"] == "complete"]
    values = {
        "stepfront_evaluations": float(len(series)),
        "stepfront_failed": float((snapshot.trials["state"] == "failed").sum()),
        "stepfront_evaluation_seconds": float(complete["seconds"].tail(RECENT).mean()),
        "stepfront_mlflow_waiting": float(waiting),
    }
    for name in ("hypervolume", "front_size", "best_fid", "gflops_at_full_quality", "trials_per_hour"):
        values[f"stepfront_{name}"] = float(last[name])
    return {name: value for name, value in values.items() if np.isfinite(value)}


def export_gauges(search: str, snapshot: Snapshot, waiting: int) -> None:
    """Sets the gauges where this process is part of a Ray cluster; elsewhere nobody would read them."""
    import ray

    if not ray.is_initialized() or snapshot.progress.empty:
        return
    for name, value in gauge_values(snapshot, waiting).items():
        _gauge(name).set(value, {"search": search})


@cache
def _gauge(name: str) -> Gauge:
    from ray.util.metrics import Gauge

    return Gauge(name, GAUGES[name], tag_keys=("search",))
