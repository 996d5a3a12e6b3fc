"""Export a running search to Prometheus, as gauges on Ray's own metrics endpoint.

Ray exports them as `ray_stepfront_...` on each node's metrics port; dashboards/grafana/ draws them beside Ray's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stepfront.search.records.history import series_table
from stepfront.tables.schema import PART_SECONDS
from stepfront.tables.search_tables import Snapshot

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

    from stepfront.search.study.ledger import Ledger

RECENT = 20
"""Number of evaluations over which gauges take means."""

GAUGES = {
    "stepfront_evaluations": "trials with a score",
    "stepfront_failed": "trials that failed at every attempt",
    "stepfront_in_flight": "trials that run, or that wait for a worker",
    "stepfront_interrupted": "trials that a worker did not finish and that wait for another attempt",
    "stepfront_hypervolume": "hypervolume of the front",
    "stepfront_front_size": "points on the front",
    "stepfront_best_fid": "best FID so far",
    "stepfront_gflops_at_full_width_fid": "GFLOPs of the cheapest trial that scores as well as full width",
    "stepfront_trials_per_hour": "finished trials per hour since the search began",
    "stepfront_evaluation_seconds": f"mean seconds of the last {RECENT} evaluations",
    "stepfront_part_seconds": "the same per part: sampling, features, distance, other",
    "stepfront_prefix_states": "states in the prefix cache of a worker",
    "stepfront_prefix_mb": "megabytes (2^20 bytes) in the prefix cache of a worker",
    "stepfront_calls_spared": f"share of network calls that the prefix cache saved in the last {RECENT} evaluations",
    "stepfront_mlflow_waiting": "trials that are not in MLflow yet",
}
"""Every gauge with its description; each has the tag `search`, the search's name."""

TAGS = {"stepfront_part_seconds": "part", "stepfront_prefix_states": "worker", "stepfront_prefix_mb": "worker"}
"""The second tag of the gauges that have one."""


@dataclass(frozen=True)
class GaugeValue:
    """The value of a gauge; `of` is the value of its second tag, if it has one."""

    name: str
    value: float
    of: str = ""


def gauge_values(snapshot: Snapshot, waiting: int) -> list[GaugeValue]:
    """Return the value of each gauge but those of the queue; gauges without a value yet are left out."""
    series = series_table(snapshot)
    last = series.iloc[-1]
    complete = snapshot.trials[snapshot.trials["state"] == "complete"].sort_values("elapsed")
    recent = complete.tail(RECENT)
    values = [
        GaugeValue("stepfront_evaluations", len(series)),
        GaugeValue("stepfront_failed", int((snapshot.trials["state"] == "failed").sum())),
        GaugeValue("stepfront_evaluation_seconds", recent["seconds"].mean()),
        GaugeValue(
            "stepfront_calls_spared", recent["calls_saved"].sum() / (recent["calls"] + recent["calls_saved"]).sum()
        ),
        GaugeValue("stepfront_mlflow_waiting", waiting),
        *_parts(recent),
        *_prefixes(complete, 30 + 3 * recent["seconds"].max()),
    ]
    for name in ("hypervolume", "front_size", "best_fid", "gflops_at_full_width_fid", "trials_per_hour"):
        values.append(GaugeValue(f"stepfront_{name}", float(last[name])))
    return [value for value in values if np.isfinite(value.value)]


def _parts(recent: pd.DataFrame) -> Iterator[GaugeValue]:
    timed = recent.dropna(
        subset=list(PART_SECONDS)
    )  # a search that began with an older stepfront has rows without them
    means = timed[list(PART_SECONDS)].mean()
    for column, mean in means.items():
        yield GaugeValue("stepfront_part_seconds", mean, str(column).removesuffix("_seconds"))
    yield GaugeValue("stepfront_part_seconds", timed["seconds"].mean() - means.sum(), "other")


def _prefixes(complete: pd.DataFrame, silent_seconds: float) -> Iterator[GaugeValue]:
    """Yield the cache sizes of each worker at its last result; workers silent for so many seconds are left out."""
    last = complete.drop_duplicates("worker", keep="last")
    for _, row in last[last["elapsed"] >= last["elapsed"].max() - silent_seconds].iterrows():
        yield GaugeValue("stepfront_prefix_states", float(row["prefix_states"]), str(row["worker"]))
        yield GaugeValue("stepfront_prefix_mb", float(row["prefix_mb"]), str(row["worker"]))


@dataclass
class Gauges:
    """The gauges of one search; they are set only when this process is connected to a Ray cluster."""

    search: str
    _workers: set[tuple[str, str]] = field(default_factory=set)
    _queue: tuple[int, int] | None = None

    def tables(self, snapshot: Snapshot, waiting: int) -> None:
        """Set the gauges that follow from the tables; `waiting` trials are not in MLflow yet."""
        if not _connected() or snapshot.progress.empty:
            return
        values = gauge_values(snapshot, waiting)
        for value in values:
            self._set(value)
        active = {(value.name, value.of) for value in values if TAGS.get(value.name) == "worker"}
        for name, worker in self._workers - active:
            self._set(GaugeValue(name, 0.0, worker))  # Ray would export the last value for as long as the driver lives
        self._workers = active

    def queue(self, ledger: Ledger) -> None:
        """Set the gauges of trials in flight and waiting; cheap when nothing has changed."""
        now = (ledger.in_flight, ledger.interrupted)
        if now == self._queue or not _connected():
            return
        self._queue = now
        self._set(GaugeValue("stepfront_in_flight", now[0]))
        self._set(GaugeValue("stepfront_interrupted", now[1]))

    def _set(self, value: GaugeValue) -> None:
        tags: Mapping[str, str] = {TAGS[value.name]: value.of} if value.name in TAGS else {}
        _gauge(value.name).set(float(value.value), {"search": self.search, **tags})


def _connected() -> bool:
    import ray

    return bool(ray.is_initialized())


@cache
def _gauge(name: str) -> Gauge:
    from ray.util.metrics import Gauge

    return Gauge(name, GAUGES[name], tag_keys=("search", *([TAGS[name]] if name in TAGS else [])))
