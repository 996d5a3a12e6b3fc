"""Write the trials of a search as child runs.

A trial takes three requests, and one more each time that it joins or leaves the front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.mlflow_run import MAX_PARAM_CHARACTERS, MlflowRun, finite_metrics
from stepfront.search.mlflow_runs.run_context import context_tags
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.objectives import Objectives
from stepfront.search.pareto import domination_rank
from stepfront.search.tracking.saved_view import LOG_FID
from stepfront.tables.facts import search_id_of
from stepfront.tables.schema import confirmed_columns
from stepfront.tables.search_tables import Snapshot
from stepfront.trainers.variant import parse_variants

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

FRONT_COLOUR, OTHER_COLOUR = "#d55e00", "#9aa5b1"
AT_FULL_QUALITY = "cheapest at equal quality"
CONFIRMED = (
    *("fid_confirmed", "fid_low", "fid_high", "kid", "kid_low", "kid_high", "precision", "recall", "fid_infinity"),
    *("second_confirmed", "second_low", "second_high"),
)
TABLE_ROWS = 100
"""Runs that MLflow's page lists and draws before "Load more": the search's own run and the first trials."""

MAX_AXES = 12
"""Steps of which a trial shows what they run: axes of the UI's parallel coordinates."""


class TrialRuns:
    """Write the child runs of a search, and note in `written` what they hold."""

    def __init__(self, client: MlflowClient, settings: RunSettings, written: WrittenSearch) -> None:
        self._client, self._settings, self._written = client, settings, written
        self._objectives = Objectives.of_settings(settings)
        own = [score.name for score in settings.scores]
        self._context: dict[str, str] = {}
        self._confirmed = (*CONFIRMED, *(column for name in own for column in confirmed_columns(name)))

    def find(self, trials: pd.DataFrame, extended: bool = False) -> None:
        """Note the child runs that the store has, and delete those that the table contradicts.

        Of a search that was `extended` to a larger space, earlier runs have the genome that their plan had before.
        """
        rows = {str(row["trial"]): row for row in trials.to_dict("records")}
        children: dict[str, str] = {}
        query, token = f"tags.mlflow.parentRunId = '{self._written.run_id}'", None
        while True:
            page = self._client.search_runs([self._written.experiment_id], query, max_results=1000, page_token=token)
            for run in page:
                trial = run.data.tags.get("trial")
                if trial is None:  # a run that a user nested here
                    continue
                other = trial in rows and _is_other(run.data.params, rows[trial], extended)
                # A run that a killed driver left open is written again from its row.  So is one of another plan: the
                # study was continued from an older copy of itself.
                if run.info.status == "RUNNING" or other:
                    self._client.delete_run(run.info.run_id)
                    continue
                children[trial] = run.info.run_id
                for name, noted in (("domination_rank", self._written.ranks), ("table_row", self._written.rows)):
                    if name in run.data.metrics:
                        noted[trial] = int(run.data.metrics[name])
            token = page.token
            if not token:
                break
        self._written.children = children
        # A child that was deleted in MLflow is written again, and with it all that it held.
        for held in (self._written.ranks, self._written.rows, self._written.labels, self._written.confirmed):
            for trial in held.keys() - children.keys():
                del held[trial]

    def write(self, snapshot: Snapshot) -> None:
        """Write the trials that are missing, and which trials joined or left the front."""
        self._context = self._context or context_tags(str(snapshot.facts.get("command") or ""))
        ranks, before = domination_ranks(snapshot.trials, self._objectives), self._written.ranks
        search_id = self._written.id_in_mlflow(search_id_of(snapshot.facts))
        for _, row in snapshot.trials.iterrows():
            if str(row["trial"]) not in self._written.children:
                self._write_child(search_id, row, ranks.get(str(row["trial"])))
        # Ranks behind the front change by the hundred as it moves: `finish` writes them once.
        self._write_ranks({trial: rank for trial, rank in ranks.items() if (rank == 0) != (before.get(trial) == 0)})

    def finish(self, snapshot: Snapshot) -> None:
        """Write what only the complete search knows: all ranks, rows of the table, labels and confirmed scores."""
        ranks = domination_ranks(snapshot.trials, self._objectives)
        beyond = dict.fromkeys(self._written.rows, TABLE_ROWS)
        self._write_ranks(ranks, beyond | table_rows(snapshot.trials, ranks, self._objectives.cost))
        self._write_labels(snapshot)
        self._write_confirmed(snapshot.front)

    def _child(self, trial: str) -> MlflowRun:
        return MlflowRun(self._client, self._written.children[trial])

    def _write_child(self, search_id: str, row: pd.Series, rank: int | None) -> None:
        trial, complete = str(row["trial"]), row["state"] == "complete"
        tags = {"mlflow.parentRunId": self._written.run_id, "kind": "trial", "search_id": search_id, "trial": trial}
        tags |= self._context | {"worker": row["worker"], "origin": row["origin"], "mlflow.runColor": _colour(rank)}
        tags |= {"features": row["features"]} if row.get("features") else {}
        if not complete:
            tags |= {"error": row["error"], "mlflow.note.content": row["error"]}
        params = {key: row[key] for key in ("plan", "origin", "generation", "genome")}
        if self._settings.space.searches_sampler:
            params |= {key: row[key] for key in ("solver", "grid")}
        params |= plan_params(row, self._settings)
        names = ("fid", "gflops", "latency_ms", "seconds", "generation", *self._objectives.scores)
        values = {key: row[key] for key in names}
        if complete and row["fid"] > 0:
            values[LOG_FID] = math.log10(row["fid"])
        run = MlflowRun.begin(self._client, self._written.experiment_id, f"trial {trial}", tags)
        run.log(rounded_metrics(values if rank is None else values | {"domination_rank": rank}), params)
        run.end("FINISHED" if complete else "FAILED")
        self._written.children[trial] = run.run_id
        if rank is not None:
            self._written.ranks[trial] = rank

    def _write_ranks(self, ranks: Mapping[str, int], rows: Mapping[str, int] | None = None) -> None:
        rows = rows or {}
        for trial, rank in ranks.items():
            before, tags = self._written.ranks.get(trial), {}
            if (rank == 0) != (before == 0):
                tags["mlflow.runColor"] = _colour(rank)
            changed = {"domination_rank": rank} if before != rank else {}
            if trial in rows and self._written.rows.get(trial) != rows[trial]:
                changed["table_row"] = rows[trial]
            self._child(trial).log(rounded_metrics(changed), tags=tags)
            self._written.ranks[trial] = rank
            if trial in rows:
                self._written.rows[trial] = rows[trial]

    def _write_labels(self, snapshot: Snapshot) -> None:
        """Tag the trials that have a name, such as the one that saves most at equal quality, with `point`."""
        labels = {str(r["trial"]): [n for n in str(r["label"]).split(",") if n] for _, r in snapshot.front.iterrows()}
        if (savings := snapshot.facts.get("savings")) and savings.get("holds"):
            labels.setdefault(str(savings["trial"]), []).insert(0, AT_FULL_QUALITY)
        children, before = self._written.children, self._written.labels
        wanted = {trial: ", ".join(names) for trial, names in labels.items() if names and trial in children}
        for trial in before.keys() | wanted.keys():
            if before.get(trial) != wanted.get(trial) and trial in children:
                self._child(trial).log(tags={"point": wanted.get(trial, "")})
        self._written.labels = wanted

    def _write_confirmed(self, front: pd.DataFrame) -> None:
        """Write the scores on held-out noise of the front's trials, where they are new or have changed."""
        for _, row in front[front["fid_confirmed"].notna()].iterrows():
            trial = str(row["trial"])
            scores = {name: float(row[name]) for name in self._confirmed if name in row}
            scores = {name: value for name, value in scores.items() if math.isfinite(value)}
            if trial in self._written.children and self._written.confirmed.get(trial) != scores:
                self._child(trial).log(rounded_metrics(scores))
                self._written.confirmed[trial] = scores


def domination_ranks(trials: pd.DataFrame, objectives: Objectives) -> dict[str, int]:
    """Return the rank of each complete trial; the front has rank 0."""
    complete = trials[trials["state"] == "complete"]
    ranks = domination_rank(objectives.minimised(complete), complete["violation"].to_numpy(dtype=np.float64))
    return dict(zip(complete["trial"].astype(str), map(int, ranks), strict=True))


def table_rows(trials: pd.DataFrame, ranks: Mapping[str, int], cost: str) -> dict[str, int]:
    """Return the place of each trial that the first page of MLflow's table has room for.

    The front comes first, its cheapest point at the top, then the trials of the next ranks.
    """
    costs = dict(zip(trials["trial"].astype(str), trials[cost], strict=True))
    ordered = sorted(ranks, key=lambda trial: (ranks[trial], costs[trial], int(trial)))
    return {trial: row for row, trial in enumerate(ordered[: TABLE_ROWS - 1])}


def rounded_metrics(values: Mapping[Any, Any], step: int = 0) -> list[Metric]:
    """Return the finite values as metrics of four significant digits, as people read them; whole numbers stay."""
    return finite_metrics({key: _rounded(float(value)) for key, value in values.items()}, step)


def _rounded(value: float) -> float:
    return value if value.is_integer() else float(f"{value:.4g}")


def _is_other(params: Mapping[str, str], row: Mapping[Any, Any], extended: bool) -> bool:
    """Return whether the parameters of a run are of another plan than the row of its trial."""
    names = ["plan", *(name for name in ("solver", "grid") if name in params)] if extended else ["genome"]
    return any(str(row[name])[:MAX_PARAM_CHARACTERS] not in ("", params.get(name)) for name in names)


def width_axes(settings: RunSettings) -> int:
    """Return for how many steps of a plan it is shown what they run: one per stage or step, `MAX_AXES` at most."""
    units = settings.space.stages if settings.space.encoding == "stages" else settings.sampler.steps
    return min(MAX_AXES, units, settings.sampler.steps)


def width_names(count: int) -> list[str]:
    """Return the parameters of a trial that hold what the steps of its plan run: `0.5`, or `0.5r` with a mark."""
    return [f"w{i:02d}" for i in range(count)]


def plan_params(row: pd.Series, settings: RunSettings) -> dict[str, Any]:
    """Return the parameters that describe a trial's plan: its steps, and what the middle of equal parts of it runs.

    Where the space has marks, so do these, and the steps that have each kind of mark are counted.
    """
    widths, variants, count = list(row["widths"]), parse_variants(str(row["plan"])), width_axes(settings)
    found: dict[str, Any] = {"steps": sum(width > 0 for width in widths)}
    if any(variant.mark for variant in settings.space.listed):
        found["reusing_steps"] = sum(variant.reuse for variant in variants)
        found["unguided_steps"] = sum(not variant.guided for variant in variants)
        if any(variant.depth is not None for variant in settings.space.listed):
            found["shallow_steps"] = sum(variant.depth is not None for variant in variants)
        if any(variant.scale is not None for variant in settings.space.listed):
            found["own_scale_steps"] = sum(variant.scale is not None for variant in variants)
    # The widths of the plan's text are rounded; its marks are not.
    steps = [f"{width:g}{variant.mark}" for width, variant in zip(widths, variants, strict=True)]
    return found | dict(zip(width_names(count), shown_steps(steps, count), strict=True))


T = TypeVar("T")


def shown_steps(steps: Sequence[T], count: int) -> list[T]:
    """Return the steps in the middle of `count` equal parts of a plan."""
    return [steps[int((part + 0.5) * len(steps) / count)] for part in range(count)]


def _colour(rank: int | None) -> str:
    return FRONT_COLOUR if rank == 0 else OTHER_COLOUR
