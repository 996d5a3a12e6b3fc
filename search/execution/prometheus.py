"""A running search for Prometheus: its tables and its queue in; gauges on Ray's own metrics endpoint out.

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

GAUGES = {
    "stepfront_evaluations": "trials with a score",
    "stepfront_failed": "trials without one",
    "stepfront_in_flight": "trials that a worker has, or that wait for one",
    "stepfront_cut_off": "trials that a worker did not finish and that wait to be asked again",
    "stepfront_hypervolume": "hypervolume of the front",
    "stepfront_front_size": "points on the front",
    "stepfront_best_fid": "best FID so far",
    "stepfront_gflops_at_full_quality": "GFLOPs of the cheapest trial that scores as well as full width",
    "stepfront_trials_per_hour": "finished trials an hour since the search began",
    "stepfront_evaluation_seconds": f"mean seconds of the last {RECENT} evaluations",
    "stepfront_part_seconds": "the same by part: sampling, features, distance, other",
    "stepfront_prefix_states": "states of shared prefixes that a worker keeps",
    "stepfront_prefix_mb": "megabytes (2^20 bytes) of shared prefixes that a worker keeps",
    "stepfront_calls_spared": f"share of network calls that prefixes spared the last {RECENT} evaluations",
    "stepfront_mlflow_waiting": "trials that MLflow does not hold yet",
}
"""Every gauge and what it says; each has the tag `search`, the search's name."""

TAGS = {"stepfront_part_seconds": "part", "stepfront_prefix_states": "worker", "stepfront_prefix_mb": "worker"}
"""The gauges that have a second tag."""


@dataclass(frozen=True)
class Reading:
    """The value of a gauge; `of` is that of its second tag, where it has one."""

    name: str
    value: float
    of: str = ""


def readings(snapshot: Snapshot, waiting: int) -> list[Reading]:
    """What the tables say of each gauge but those of the queue; gauges that have no value yet are left out."""
    series = series_table(snapshot)
    last = series.iloc[-1]
    complete = snapshot.trials[snapshot.trials["state"] == "complete"].sort_values("elapsed")
    recent = complete.tail(RECENT)
    found = [
        Reading("stepfront_evaluations", len(series)),
        Reading("stepfront_failed", int((snapshot.trials["state"] == "failed").sum())),
        Reading("stepfront_evaluation_seconds", recent["seconds"].mean()),
        Reading(
            "stepfront_calls_spared", recent["calls_saved"].sum() / (recent["calls"] + recent["calls_saved"]).sum()
        ),
        Reading("stepfront_mlflow_waiting", waiting),
        *_parts(recent),
        *_prefixes(complete, 30 + 3 * recent["seconds"].max()),
    ]
    for name in ("hypervolume", "front_size", "best_fid", "gflops_at_full_quality", "trials_per_hour"):
        found.append(Reading(f"stepfront_{name}", float(last[name])))
    return [reading for reading in found if np.isfinite(reading.value)]


def _parts(recent: pd.DataFrame) -> Iterator[Reading]:
    timed = recent.dropna(subset=list(PART_SECONDS))  # a search that is older than its parts has some without
    means = timed[list(PART_SECONDS)].mean()
    for column, mean in means.items():
        yield Reading("stepfront_part_seconds", mean, str(column).removesuffix("_seconds"))
    yield Reading("stepfront_part_seconds", timed["seconds"].mean() - means.sum(), "other")


def _prefixes(complete: pd.DataFrame, silence: float) -> Iterator[Reading]:
    """What each worker had kept when it was last heard of; one that was silent for so many seconds is gone."""
    last = complete.drop_duplicates("worker", keep="last")
    for _, row in last[last["elapsed"] >= last["elapsed"].max() - silence].iterrows():
        yield Reading("stepfront_prefix_states", float(row["prefix_states"]), str(row["worker"]))
        yield Reading("stepfront_prefix_mb", float(row["prefix_mb"]), str(row["worker"]))


@dataclass
class Gauges:
    """The gauges of one search, set where this process is part of a Ray cluster; elsewhere nobody reads them."""

    search: str
    _workers: set[tuple[str, str]] = field(default_factory=set)
    _queue: tuple[int, int] | None = None

    def tables(self, snapshot: Snapshot, waiting: int) -> None:
        """Sets what the tables say; `waiting` trials are not in MLflow yet."""
        if not _connected() or snapshot.progress.empty:
            return
        found = readings(snapshot, waiting)
        for reading in found:
            self._set(reading)
        heard = {(reading.name, reading.of) for reading in found if TAGS.get(reading.name) == "worker"}
        for name, worker in self._workers - heard:
            self._set(Reading(name, 0.0, worker))  # Ray would export the last value for as long as the driver lives
        self._workers = heard

    def queue(self, ledger: Ledger) -> None:
        """Sets what is being evaluated and what waits; called often, it does something only where they have changed."""
        now = (ledger.in_flight, ledger.interrupted)
        if now == self._queue or not _connected():
            return
        self._queue = now
        self._set(Reading("stepfront_in_flight", now[0]))
        self._set(Reading("stepfront_cut_off", now[1]))

    def _set(self, reading: Reading) -> None:
        tags: Mapping[str, str] = {TAGS[reading.name]: reading.of} if reading.name in TAGS else {}
        _gauge(reading.name).set(float(reading.value), {"search": self.search, **tags})


def _connected() -> bool:
    import ray

    return bool(ray.is_initialized())


@cache
def _gauge(name: str) -> Gauge:
    from ray.util.metrics import Gauge

    return Gauge(name, GAUGES[name], tag_keys=("search", *([TAGS[name]] if name in TAGS else [])))
