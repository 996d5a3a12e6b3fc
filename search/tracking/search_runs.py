"""A search as MLflow runs: a snapshot in; a parent run with its series, a child run a trial, and artifacts out.

Three requests make a child; one more tells that it joined or left the front.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stepfront.search.config import RunSettings
from stepfront.search.pareto import domination_rank
from stepfront.search.records.history import series_table
from stepfront.search.tracking.mirror import STATE_FILE, Written, artifact_folder, tracking_uri
from stepfront.search.tracking.parents import parent_searches
from stepfront.search.tracking.saved_view import saved_view, view_tag
from stepfront.tables.search_tables import Snapshot

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

_ARTIFACTS = {".html", ".parquet", ".csv", ".svg", ".png", ".yaml", ".json"}
FRONT_COLOUR, OTHER_COLOUR, SEARCH_COLOUR = "#d55e00", "#9aa5b1", "#0072b2"
AT_FULL_QUALITY = "cheapest at full-width quality"
CONFIRMED = ("fid_confirmed", "fid_low", "fid_high", "kid", "kid_low", "kid_high", "precision", "recall")
MOST_AXES = 12
"""How many widths a trial shows at most: axes of the UI's parallel coordinates."""

MOST_CHARACTERS = 5900
"""Of a parameter; MLflow lets it be 6,000."""


def find_search_run(client: MlflowClient, settings: RunSettings, written: Written, snapshot: Snapshot) -> None:
    """Brings `written` in line with what the server holds of this search; begins the parent run where it has none."""
    from mlflow.exceptions import MlflowException

    if written.run_id:
        try:
            # A process that outlived its killed driver may have noted down the run of a search that was begun anew.
            known = client.get_run(written.run_id).data.tags.get("search_id") == str(snapshot.facts["search_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            known = False  # another tracking store: begin anew there
        if not known:
            written.__dict__.update(Written().__dict__)
    if not written.run_id:
        name = settings.tracking.experiment or experiment_name(settings)
        experiment = client.get_experiment_by_name(name)
        place = artifact_folder(settings.tracking.uri)
        written.experiment_id = experiment.experiment_id if experiment else client.create_experiment(name, place)
        which = f"tags.search_id = '{snapshot.facts['search_id']}' and tags.kind = 'search'"
        found = client.search_runs([written.experiment_id], which, max_results=1)
        if not found:
            _begin(client, settings, written, snapshot.facts)
            return
        written.run_id = found[0].info.run_id
    _find_children(
        client, written, dict(zip(snapshot.trials["trial"].astype(str), snapshot.trials["genome"], strict=True))
    )


def _begin(client: MlflowClient, settings: RunSettings, written: Written, facts: Mapping[str, Any]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param

    tags = {"kind": "search", "search_id": str(facts["search_id"]), "mlflow.runColor": SEARCH_COLOUR}
    tags |= {k: str(facts[k]) for k in ("dataset", "fingerprint", "supernet_digest", "features") if k in facts}
    written.run_id = client.create_run(written.experiment_id, run_name=settings.name, tags=tags).info.run_id
    # Only what can never change at a resume is a parameter; MLflow refuses to change one.
    names = ("dataset", "features", "steps", "solver", "guidance", "encoding", "widths")
    fixed = {k: facts[k] for k in names if facts.get(k) is not None}
    # The saved view sorts by rank; so the search's own run stands first, and its series are among the first 100 runs.
    first = _metrics({"domination_rank": -1})
    client.log_batch(written.run_id, metrics=first, params=[Param(k, str(v)) for k, v in fixed.items()])
    source = {"format": settings.data.format, "path": settings.data.path, "fingerprint": facts.get("fingerprint")}
    data = Dataset(
        name=str(facts.get("dataset")),
        digest=str(facts.get("fingerprint"))[:36],  # as long as MLflow lets a digest be; the source has all of it
        source_type="stepfront",
        source=json.dumps(source),
        profile=json.dumps({"features": facts.get("features"), "images_per_score": facts.get("images")}),
    )
    client.log_inputs(written.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "search")])])


def _find_children(client: MlflowClient, written: Written, genomes: Mapping[str, str]) -> None:
    token = None
    found: dict[str, str] = {}
    while True:
        page = client.search_runs(
            [written.experiment_id],
            f"tags.mlflow.parentRunId = '{written.run_id}'",
            max_results=1000,
            page_token=token,
        )
        for run in page:
            trial = run.data.tags["trial"]
            other = genomes.get(trial, "")[:MOST_CHARACTERS] not in ("", run.data.params.get("genome"))
            # A child that a killed driver left open is written again from its table row; so is one of another plan,
            # where a study went on from an older copy of itself.
            if run.info.status == "RUNNING" or other:
                client.delete_run(run.info.run_id)
                continue
            found[trial] = run.info.run_id
            if "domination_rank" in run.data.metrics:
                written.ranks[trial] = int(run.data.metrics["domination_rank"])
        token = page.token
        if not token:
            break
    written.children = found


def write_search(client: MlflowClient, settings: RunSettings, written: Written, snapshot: Snapshot) -> None:
    """What MLflow lacks of the snapshot: trials, who joined or left the front, and the series of the parent."""
    ranks = _ranks(snapshot.trials, settings.evaluation.objectives)
    for _, row in snapshot.trials.iterrows():
        if str(row["trial"]) not in written.children:
            shown = thinned(row["widths"], width_axes(settings))
            _write_child(client, written, str(snapshot.facts["search_id"]), row, ranks.get(str(row["trial"])), shown)
    # Ranks behind the front change by the hundred as it moves: they are told once, in the end.
    _write_ranks(client, written, {t: rank for t, rank in ranks.items() if (rank == 0) != (written.ranks.get(t) == 0)})
    _write_series(client, written, snapshot)


def _write_ranks(client: MlflowClient, written: Written, ranks: Mapping[str, int]) -> None:
    for trial, rank in ranks.items():
        before = written.ranks.get(trial)
        if before != rank:
            tags = [_tag("mlflow.runColor", _colour(rank))] if (rank == 0) != (before == 0) else []
            client.log_batch(written.children[trial], metrics=_metrics({"domination_rank": rank}), tags=tags)
            written.ranks[trial] = rank


def _ranks(trials: pd.DataFrame, objectives: tuple[str, ...]) -> dict[str, int]:
    complete = trials[trials["state"] == "complete"]
    scores = complete[list(objectives)].to_numpy(dtype=np.float64)
    ranks = domination_rank(scores, complete["violation"].to_numpy(dtype=np.float64))
    return dict(zip(complete["trial"].astype(str), map(int, ranks), strict=True))


def _write_child(
    client: MlflowClient, written: Written, search_id: str, row: pd.Series, rank: int | None, widths: list[float]
) -> None:
    """One trial in three requests."""
    from mlflow.entities import Param

    trial, complete = str(row["trial"]), row["state"] == "complete"
    tags = {"mlflow.parentRunId": written.run_id, "kind": "trial", "search_id": search_id, "trial": trial}
    tags |= {"worker": row["worker"], "origin": row["origin"], "mlflow.runColor": _colour(rank)}
    tags |= {"features": row["features"]} if row.get("features") else {}
    if not complete:
        tags |= {"error": row["error"], "mlflow.note.content": row["error"]}
    run = client.create_run(written.experiment_id, run_name=f"trial {trial}", tags=tags)
    params = {key: row[key] for key in ("plan", "origin", "generation", "genome")}
    params["steps"] = sum(width > 0 for width in row["widths"])
    params |= {name: f"{width:g}" for name, width in zip(width_names(len(widths)), widths, strict=True)}
    values = {k: row[k] for k in ("fid", "gflops", "latency_ms", "seconds", "generation")}
    client.log_batch(
        run.info.run_id,
        metrics=_metrics(values if rank is None else values | {"domination_rank": rank}),
        params=[Param(k, str(v)[:MOST_CHARACTERS]) for k, v in params.items()],
    )
    client.set_terminated(run.info.run_id, "FINISHED" if complete else "FAILED")
    written.children[trial] = run.info.run_id
    if rank is not None:
        written.ranks[trial] = rank


def _write_series(client: MlflowClient, written: Written, snapshot: Snapshot) -> None:
    series = series_table(snapshot)
    metrics = []
    for _, row in series.iloc[written.evaluations :].iterrows():
        metrics += _metrics(row.drop("evaluation").to_dict(), step=int(row["evaluation"]))
    totals = {"failed": int((snapshot.trials["state"] == "failed").sum()), "evaluations": len(series)}
    totals |= {f"tau_{pair['lower']}_{pair['upper']}": pair["tau"] for pair in snapshot.facts.get("proxy_tau", [])}
    metrics += _metrics(totals, step=len(series))
    for first in range(0, len(metrics), 900):
        client.log_batch(written.run_id, metrics=metrics[first : first + 900])
    written.evaluations = len(series)


def finish_search(
    client: MlflowClient,
    settings: RunSettings,
    written: Written,
    snapshot: Snapshot,
    artifacts: Path,
    finished: bool,
    summary: str,
) -> None:
    """Ranks, labels, the saved view, the note, the artifacts and the end of the parent run."""
    _write_ranks(client, written, _ranks(snapshot.trials, settings.evaluation.objectives))
    _write_labels(client, written, snapshot)
    _write_confirmed(client, written, snapshot)
    axes = [*(["steps"] if settings.space.skip else []), *width_names(width_axes(settings))]
    state = saved_view(settings.evaluation.objectives, axes, str(snapshot.facts["search_id"]))
    name = f"{settings.name}: the front"
    client.set_experiment_tag(written.experiment_id, *view_tag(state, str(snapshot.facts["search_id"]), name))
    parents = parent_searches(snapshot.facts)
    same_store = [p for p in parents if p["run_id"] and p["uri"] == tracking_uri(settings.tracking.uri)]
    tags = [_tag("mlflow.note.content", describe(snapshot, summary, same_store))]
    if parents:
        tags.append(_tag("parent_search_ids", ",".join(p["search_id"] for p in parents)))
        tags.append(_tag("parent_run_ids", ",".join(p["run_id"] for p in same_store)))
    client.log_batch(written.run_id, tags=tags)
    for path in sorted(artifacts.glob("*")):
        if path.suffix in _ARTIFACTS and path.name != STATE_FILE:
            client.log_artifact(written.run_id, str(path))
    if (artifacts / "images").is_dir():
        client.log_artifacts(written.run_id, str(artifacts / "images"), "images")
    plain = snapshot.trials.drop(columns=["times", "widths", "parents"])
    client.log_table(written.run_id, plain.round(4), "trials.json")
    client.set_terminated(written.run_id, "FINISHED" if finished else "KILLED")


def _write_labels(client: MlflowClient, written: Written, snapshot: Snapshot) -> None:
    """Tag `point` on the trials that people ask for by name, among them the one that saves most at equal quality."""
    labels = {str(r["trial"]): [n for n in str(r["label"]).split(",") if n] for _, r in snapshot.front.iterrows()}
    savings = snapshot.facts.get("savings")
    if savings:
        labels.setdefault(str(savings["trial"]), []).insert(0, AT_FULL_QUALITY)
    wanted = {trial: ", ".join(names) for trial, names in labels.items() if names and trial in written.children}
    for trial in written.labels.keys() | wanted.keys():
        if written.labels.get(trial) != wanted.get(trial) and trial in written.children:
            client.set_tag(written.children[trial], "point", wanted.get(trial, ""))
    written.labels = wanted


def _write_confirmed(client: MlflowClient, written: Written, snapshot: Snapshot) -> None:
    """The scores on fresh noise as metrics of the front's trials, once, and again when they have changed."""
    front = snapshot.front
    for _, row in front[front["fid_confirmed"].notna()].iterrows():
        trial = str(row["trial"])
        scores = {name: float(row[name]) for name in CONFIRMED if name in row and math.isfinite(float(row[name]))}
        if trial in written.children and written.confirmed.get(trial) != scores:
            client.log_batch(written.children[trial], metrics=_metrics(scores))
            written.confirmed[trial] = scores


def experiment_name(settings: RunSettings) -> str:
    """One experiment a model family and space: the UI's charts and views are per experiment."""
    space = settings.space
    units = {"stages": f"{space.stages} stages", "steps": "each step", "cuts": f"{space.cuts} cuts"}[space.encoding]
    skip = {False: "", True: ", skip", "even": ", any number of steps"}[space.skip]
    return f"stepfront {settings.network.family}, {units}{skip}"


def width_axes(settings: RunSettings) -> int:
    """How many widths of a plan are shown: one a stage or step, as long as they are few."""
    units = settings.space.stages if settings.space.encoding == "stages" else settings.sampler.steps
    return min(MOST_AXES, units, settings.sampler.steps)


def width_names(count: int) -> list[str]:
    """What the widths of a plan are called, as parameters of a trial."""
    return [f"w{i:02d}" for i in range(count)]


def thinned(widths: Any, count: int) -> list[float]:
    """The widths in the middle of `count` equal parts of a plan."""
    return [float(widths[int((part + 0.5) * len(widths) / count)]) for part in range(count)]


def describe(snapshot: Snapshot, summary: str = "", parents: list[dict[str, str]] | None = None) -> str:
    """The parent run's note: what was found, what the search began from, and the front as a table."""
    lines = [summary, ""] if summary else []
    for parent in parents or []:
        link = f"#/experiments/{parent['experiment_id']}/runs/{parent['run_id']}"
        lines += [f"Begun from the front of [{parent['name']}]({link}), search {parent['search_id']}.", ""]
    features = snapshot.facts.get("features")
    fid = f"FID ({features})" if features else "FID"
    lines += [f"| trial | plan | GFLOPs | {fid} | |", "|---|---|---|---|---|"]
    for _, row in snapshot.front.iterrows():
        lines.append(f"| {row['trial']} | `{row['plan']}` | {row['gflops']:.4g} | {row['fid']:.4g} | {row['label']} |")
    return "\n".join(lines)[:7900]


def _colour(rank: int | None) -> str:
    return FRONT_COLOUR if rank == 0 else OTHER_COLOUR


def _tag(key: str, value: str) -> RunTag:
    from mlflow.entities import RunTag

    return RunTag(key, value)


def _metrics(values: Mapping[Any, Any], step: int = 0) -> list[Metric]:
    """Finite values, rounded for people; a NaN or an infinity would ruin the UI's axes."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(str(k), float(f"{v:.4g}"), now, step) for k, v in values.items() if math.isfinite(float(v))]
