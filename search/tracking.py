"""MLflow: snapshots of a search's tables in, a parent run with its children and artifacts out.

A background thread mirrors the newest snapshot; the search never waits for it.  What MLflow lacks is found by comparing
the tables with what was written (mlflow.json beside them, or the server's own runs), so a server that was away, or a
driver that was killed, is made good by the next snapshot or by a later run.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from search.config import RunSettings
from search.front import domination_rank
from search.saved_view import saved_view, view_tag
from search.tables import Snapshot
from trainers.files import read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

STATE_FILE = "mlflow.json"
_ARTIFACTS = {".html", ".parquet", ".csv", ".svg", ".png", ".yaml", ".json"}
FRONT_COLOUR, OTHER_COLOUR = "#d55e00", "#9aa5b1"

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass
class Written:
    """What MLflow holds already."""

    experiment_id: str = ""
    run_id: str = ""
    children: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    evaluations: int = 0


class Mirror:
    """Writes snapshots to MLflow in a thread of its own.  `problem` says why the last attempt failed, if it did."""

    def __init__(self, settings: RunSettings, directory: Path) -> None:
        os.environ.update({key: value for key, value in _ENVIRONMENT.items() if key not in os.environ})
        self.problem = ""
        self._settings, self._directory = settings, directory
        self._uri = tracking_uri(settings.tracking.uri)
        self._written = _read_state(directory)
        self._newest: Snapshot | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        if self._uri is not None:
            self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
            self._thread.start()

    def update(self, snapshot: Snapshot) -> None:
        """Hands over the newest tables; returns at once.  An older snapshot that still waits is replaced: the newer
        holds all that it held, so the queue is never longer than one."""
        self._newest = snapshot
        self._wake.set()

    def stop(self, timeout: float = 10) -> None:
        """Ends the thread once its write in progress is done; what it lacks is left to `close` or to a later run."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def close(self, snapshot: Snapshot, artifacts: Path, finished: bool, timeout: float = 120) -> str:
        """Writes the last snapshot and the artifacts, waiting `timeout` seconds at most; returns what went wrong."""
        if self._thread is None:
            return ""
        self.stop(timeout)
        last = threading.Thread(
            target=self._try, args=(lambda: self._finish(snapshot, artifacts, finished),), daemon=True
        )
        last.start()
        last.join(timeout)
        return f"MLflow at {self._uri} is too slow" if last.is_alive() else self.problem

    @property
    def run(self) -> Written:
        return self._written

    @property
    def uri(self) -> str | None:
        return self._uri

    def _run(self) -> None:
        wait = 1.0
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._newest is None or self._closing.is_set():
                continue
            if self._try(partial(self._write, self._newest)):
                wait = 1.0
            else:
                # The server is away: come back later, with the newest snapshot there is then.
                self._closing.wait(wait)
                wait = min(60.0, 2 * wait)
                self._wake.set()

    def _try(self, action: Any) -> bool:
        try:
            action()
            self.problem = ""
            return True
        except Exception as error:  # whatever MLflow, its database or its server raise must not end a search
            self.problem = f"MLflow at {self._uri}: {next(iter(str(error).splitlines()), type(error).__name__)}"
            return False
        finally:
            _write_state(self._directory, self._written)

    def _write(self, snapshot: Snapshot) -> None:
        client = make_client(self._uri)
        self._ensure_parent(client, snapshot)
        for _, row in snapshot.trials.iterrows():
            if str(row["trial"]) not in self._written.children:
                self._write_child(client, row)
        self._write_ranks(client, snapshot.trials)
        self._write_series(client, snapshot)

    def _ensure_parent(self, client: MlflowClient, snapshot: Snapshot) -> None:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        written, facts = self._written, snapshot.facts
        if written.run_id:
            try:
                client.get_run(written.run_id)
                return
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                self._written = written = Written()  # another tracking store: begin anew there
        name = self._settings.tracking.experiment or experiment_name(self._settings)
        experiment = client.get_experiment_by_name(name)
        written.experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
        found = client.search_runs(
            [written.experiment_id], f"tags.search_id = '{facts['search_id']}' and tags.kind = 'search'", max_results=1
        )
        if found:
            written.run_id = found[0].info.run_id
            self._find_children(client)
            return
        tags = {"kind": "search", "search_id": str(facts["search_id"])}
        origin = ("dataset", "fingerprint", "supernet_digest", "features")
        tags |= {key: str(facts[key]) for key in origin if key in facts}
        run = client.create_run(written.experiment_id, run_name=self._settings.name, tags=tags)
        written.run_id = run.info.run_id
        # Only what can never change at a resume is a parameter; MLflow refuses to change one.
        fixed = {k: facts[k] for k in ("dataset", "features", "steps", "solver", "encoding", "widths") if k in facts}
        client.log_batch(written.run_id, params=[Param(k, str(v)) for k, v in fixed.items()])

    def _find_children(self, client: MlflowClient) -> None:
        token = None
        while True:
            page = client.search_runs(
                [self._written.experiment_id],
                f"tags.mlflow.parentRunId = '{self._written.run_id}'",
                max_results=1000,
                page_token=token,
            )
            for run in page:
                # A child that a killed driver left open is written again from its table row.
                if run.info.status == "RUNNING":
                    client.delete_run(run.info.run_id)
                else:
                    self._written.children[run.data.tags["trial"]] = run.info.run_id
            token = page.token
            if not token:
                return

    def _write_child(self, client: MlflowClient, row: pd.Series) -> None:
        """One trial in three requests."""
        from mlflow.entities import Param

        trial, complete = str(row["trial"]), row["state"] == "complete"
        tags = {"mlflow.parentRunId": self._written.run_id, "kind": "trial", "trial": trial, "worker": row["worker"]}
        tags |= {"origin": row["origin"], "mlflow.runColor": OTHER_COLOUR}
        if not complete:
            tags |= {"error": row["error"], "mlflow.note.content": row["error"]}
        run = client.create_run(self._written.experiment_id, run_name=f"trial {trial}", tags=tags)
        params = {key: row[key] for key in ("plan", "origin", "generation", "genome")}
        params |= {f"w{i:02d}": f"{width:g}" for i, width in enumerate(thinned(row["widths"]))}
        client.log_batch(
            run.info.run_id,
            metrics=_metrics({k: row[k] for k in ("fid", "gflops", "latency_ms", "seconds", "generation")}),
            params=[Param(k, str(v)[:5900]) for k, v in params.items()],
        )
        client.set_terminated(run.info.run_id, "FINISHED" if complete else "FAILED")
        self._written.children[trial] = run.info.run_id

    def _write_ranks(self, client: MlflowClient, trials: pd.DataFrame) -> None:
        """The domination rank of each complete trial, where it has changed; the front in its colour."""
        complete = trials[trials["state"] == "complete"]
        scores = complete[list(self._settings.evaluation.objectives)].to_numpy(dtype=np.float64)
        ranks = domination_rank(scores, complete["violation"].to_numpy(dtype=np.float64))
        for trial, rank in zip(complete["trial"].astype(str), ranks, strict=True):
            before = self._written.ranks.get(trial)
            if before == int(rank):
                continue
            run_id = self._written.children[trial]
            client.log_batch(run_id, metrics=_metrics({"domination_rank": float(rank)}))
            if (rank == 0) != (before == 0):
                client.set_tag(run_id, "mlflow.runColor", FRONT_COLOUR if rank == 0 else OTHER_COLOUR)
            self._written.ranks[trial] = int(rank)

    def _write_series(self, client: MlflowClient, snapshot: Snapshot) -> None:
        fresh = snapshot.progress.iloc[self._written.evaluations :]
        names = ("hypervolume", "front_size", "best_fid", "network_gflops")
        metrics = []
        for _, row in fresh.iterrows():
            metrics += _metrics({name: row[name] for name in names}, step=int(row["evaluation"]))
        failed = int((snapshot.trials["state"] == "failed").sum())
        totals = {"failed": failed, "evaluations": len(snapshot.progress)}
        totals |= {f"tau_{pair['lower']}_{pair['upper']}": pair["tau"] for pair in snapshot.facts.get("rung_tau", [])}
        metrics += _metrics(totals, step=len(snapshot.progress))
        for first in range(0, len(metrics), 900):
            client.log_batch(self._written.run_id, metrics=metrics[first : first + 900])
        self._written.evaluations = len(snapshot.progress)

    def _finish(self, snapshot: Snapshot, artifacts: Path, finished: bool) -> None:
        client = make_client(self._uri)
        self._write(snapshot)
        run_id, columns = self._written.run_id, min(12, len(thinned(snapshot.front["widths"].iloc[0])))
        client.set_experiment_tag(
            self._written.experiment_id, *view_tag(saved_view(self._settings.evaluation.objectives, columns))
        )
        client.set_tag(run_id, "mlflow.note.content", describe(snapshot))
        for path in sorted(artifacts.glob("*")):
            if path.suffix in _ARTIFACTS and path.name != STATE_FILE:
                client.log_artifact(run_id, str(path))
        if (artifacts / "images").is_dir():
            client.log_artifacts(run_id, str(artifacts / "images"), "images")
        plain = snapshot.trials.drop(columns=["times", "widths", "parents"])
        client.log_table(run_id, plain.round(4), "trials.json")
        client.set_terminated(run_id, "FINISHED" if finished else "KILLED")


def make_client(uri: str | None) -> MlflowClient:
    """A client of the tracking store; MLflow's chatter about it is kept from the terminal."""
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def tracking_uri(uri: str | None) -> str | None:
    """The URI with the folder of a SQLite file made, since SQLite itself makes none."""
    if uri is not None and uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///")).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{path}"
    return uri


def experiment_name(settings: RunSettings) -> str:
    """One experiment a model family and space: the UI's charts and views are per experiment."""
    space = settings.space
    units = {"stages": f"{space.stages} stages", "steps": "each step", "cuts": f"{space.cuts} cuts"}[space.encoding]
    return f"stepfront {settings.network.family}, {units}{', skip' if space.skip else ''}"


def thinned(widths: Any) -> list[float]:
    """At most 12 widths, evenly picked: axes of the UI's parallel coordinates."""
    picks = np.linspace(0, len(widths) - 1, min(12, len(widths))).round().astype(int)
    return [float(widths[i]) for i in picks]


def describe(snapshot: Snapshot) -> str:
    """The parent run's note: the front as a table."""
    lines = ["| trial | plan | GFLOPs | FID | |", "|---|---|---|---|---|"]
    for _, row in snapshot.front.iterrows():
        lines.append(f"| {row['trial']} | `{row['plan']}` | {row['gflops']:.4g} | {row['fid']:.4g} | {row['label']} |")
    return "\n".join(lines)[:7900]


def ui_command(uri: str) -> str:
    """The one command that opens the MLflow UI on this store, on loopback only."""
    return f"mlflow ui --backend-store-uri {uri} --host 127.0.0.1 --port 5000 --workers 1"


def _metrics(values: Mapping[str, Any], step: int = 0) -> list[Metric]:
    """Finite values, rounded for people; a NaN or an infinity would ruin the UI's axes."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(k, float(f"{v:.4g}"), now, step) for k, v in values.items() if math.isfinite(float(v))]


def _read_state(directory: Path) -> Written:
    path = directory / STATE_FILE
    try:
        return Written(**read_json(path, "MLflow state")) if path.exists() else Written()
    except (ValueError, TypeError):
        return Written()  # the server's own runs tell


def _write_state(directory: Path, written: Written) -> None:
    try:
        write_json(directory / STATE_FILE, written.__dict__)
    except ValueError:
        logging.getLogger(__name__).warning("can't write %s", directory / STATE_FILE)
