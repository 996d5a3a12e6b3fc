"""Write a search as MLflow runs: a parent run with its history, note and files, and a child run per trial."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.client import artifact_folder, tracking_uri
from stepfront.search.mlflow_runs.mlflow_run import MlflowRun, RunStart, dataset_input, find_or_begin
from stepfront.search.mlflow_runs.run_context import context_tags
from stepfront.search.mlflow_runs.stored_searches import ALSO_READ, IDENTITY, space_text
from stepfront.search.mlflow_runs.written import NOTE_FILE, WrittenSearch
from stepfront.search.objectives import Objectives
from stepfront.search.records.history import series_table
from stepfront.search.tracking.experiments import search_experiment
from stepfront.search.tracking.parents import parent_searches
from stepfront.search.tracking.saved_view import saved_view, view_is_known, view_tag
from stepfront.search.tracking.trial_runs import TABLE_ROWS, TrialRuns, rounded_metrics, width_axes, width_names
from stepfront.tables.facts import earlier_weights, search_id_of
from stepfront.tables.samplers import carried_samplers, sampler_texts
from stepfront.tables.search_tables import Snapshot

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

SEARCH_COLOUR = "#0072b2"
MAX_NOTE_CHARACTERS = 7900
"""Characters of a run's note; MLflow takes 8,000."""

_TABLE, _SHOWN_TABLES = "trials.json", "mlflow.loggedArtifacts"
"""The artifact that MLflow's page shows as a table, and the tag that lists such artifacts."""

_ARTIFACTS = {".html", ".parquet", ".csv", ".svg", ".png", ".yaml", ".json"}


class SearchRuns:
    """Write the runs of one search, and note in `written` what the store holds."""

    def __init__(self, client: MlflowClient, settings: RunSettings, written: WrittenSearch, mend: bool = False) -> None:
        """Restore, with `mend`, what was deleted in MLflow."""
        self._client, self._settings, self._written, self._mend = client, settings, written, mend
        self._trials = TrialRuns(client, settings, written)
        self._run: MlflowRun | None = None
        self._latest: dict[str, float] = {}

    def find(self, snapshot: Snapshot) -> MlflowRun:
        """Return the parent run, found or begun, and note which trials the store has."""
        # A killed driver may have written more than it noted, so the store is asked once.
        if self._run is None:
            run, found = find_or_begin(self._client, self._written, self._start(snapshot.facts), self._mend)
            if found:
                self._trials.find(snapshot.trials, bool(snapshot.facts.get("earlier_spaces")))
                # The driver may have been killed after it wrote the history, and before it noted that.
                logged = self._client.get_metric_history(run.run_id, "hypervolume")
                self._written.evaluations = max((metric.step for metric in logged), default=0)
                self._latest = dict(self._client.get_run(run.run_id).data.metrics)
            self._run = run
        return self._run

    def write(self, snapshot: Snapshot) -> None:
        """Write what MLflow lacks of the snapshot: trials, changes of the front, and the parent's history."""
        run = self.find(snapshot)
        self._trials.write(snapshot)
        history = series_table(snapshot)
        totals: dict[str, float] = {
            "failed": int((snapshot.trials["state"] == "failed").sum()),
            "evaluations": len(history),
        }
        totals |= {f"tau_{pair['lower']}_{pair['upper']}": pair["tau"] for pair in snapshot.facts.get("proxy_tau", [])}
        totals |= {f"earlier_weight/{name}": weight for name, weight in earlier_weights(snapshot.facts).items()}
        changed = self._changed(rounded_metrics(totals, step=len(history)))
        new = history.iloc[self._written.evaluations :].iterrows()
        missing: dict[int, dict[Any, Any]] = {int(row.pop("evaluation")): row.to_dict() for _, row in new}
        if missing:
            # A second point of a name and step would be one more row in MLflow, so the last row takes the totals.
            missing[max(missing)] |= totals
            changed = [metric for step, row in missing.items() for metric in rounded_metrics(row, step)]
        run.log(changed)
        self._written.evaluations = len(history)

    def _changed(self, metrics: list[Metric]) -> list[Metric]:
        """Return the metrics whose value is not the latest one of the run, and note them as the latest."""
        changed = [metric for metric in metrics if self._latest.get(metric.key) != metric.value]
        self._latest |= {metric.key: metric.value for metric in changed}
        return changed

    def finish(self, snapshot: Snapshot, artifacts: Path, finished: bool, summary: str) -> None:
        """Write the ranks, labels, view, note and files of a search, and end its run."""
        run = self.find(snapshot)
        self._trials.finish(snapshot)
        self._save_view(self._id_of(snapshot.facts))
        parents = parent_searches(snapshot.facts)
        same_store = [p for p in parents if p["run_id"] and p["uri"] == tracking_uri(self._settings.tracking.uri)]
        tags = {"mlflow.note.content": run_note(snapshot, summary, same_store)}
        if worth := earlier_weights(snapshot.facts):
            tags["earlier_searches"] = ", ".join(f"{name} {weight:.2f}" for name, weight in worth.items())
        for name, (tried, taken) in carried_samplers(snapshot.facts).items():
            used = f"{name}: {len(taken)} of {len(tried)}"
            tags["earlier_samplers"] = ", ".join(filter(None, (tags.get("earlier_samplers"), used)))
        if spaces := snapshot.facts.get("earlier_spaces"):  # parameters stay those that the search began with
            tags |= {
                "space": space_text(snapshot.facts),
                "extended_after_trials": ", ".join(str(s["below"]) for s in spaces),
            }
        if parents:
            tags["parent_search_ids"] = ",".join(parent["search_id"] for parent in parents)
            tags["parent_run_ids"] = ",".join(parent["run_id"] for parent in same_store)
        # The saved view sorts by this: the search's own run stands first, above its front.
        tags[_SHOWN_TABLES] = json.dumps([{"path": _TABLE, "type": "table"}])
        run.log(self._changed(rounded_metrics(claim_metrics(snapshot.facts) | {"table_row": -1})), tags=tags)
        files = [path for path in sorted(artifacts.glob("*")) if path.suffix in _ARTIFACTS and path.name != NOTE_FILE]
        run.log_files(files)
        run.log_files([artifacts / name for name in ALSO_READ if (artifacts / name).is_file()])
        for name in ("images", *ALSO_READ):
            if (artifacts / name).is_dir():
                self._client.log_artifacts(run.run_id, str(artifacts / name), name)
        plain = snapshot.trials.drop(columns=["times", "widths", "parents"])
        # MLflow's log_table would append the trials to those of the last call.
        self._client.log_text(run.run_id, plain.to_json(orient="split", index=False, double_precision=15), _TABLE)
        run.end("FINISHED" if finished else "KILLED")

    def _id_of(self, facts: Mapping[str, Any]) -> str:
        return self._written.id_in_mlflow(search_id_of(facts))

    def _start(self, facts: Mapping[str, Any]) -> RunStart:
        return _start(self._settings, facts, self._id_of(facts))

    def _save_view(self, search_id: str) -> None:
        if not view_is_known():
            logging.getLogger("stepfront").warning(
                "no view was saved for the MLflow UI: its format is not known in this version"
            )
            return
        settings = self._settings
        axes = [*(["steps"] if settings.space.skip else []), *width_names(width_axes(settings))]
        state = saved_view(Objectives.of_settings(settings).names, axes, search_id)
        tag = view_tag(state, search_id, f"{settings.name}: the front")
        self._client.set_experiment_tag(self._written.experiment_id, *tag)


def _start(settings: RunSettings, facts: Mapping[str, Any], search_id: str) -> RunStart:
    # MLflow refuses to change a parameter, so only what a resumed search keeps is one.
    names = ("dataset", "features", "steps", "solver", "guidance", "encoding", "widths", "variants")
    profile = {"features": facts.get("features"), "images_per_score": facts.get("images")}
    tags = {"space": space_text(facts)} | {
        key: str(facts[key]) for key in ("dataset", "fingerprint", "supernet_digest", "features") if key in facts
    }
    return RunStart(
        experiment=search_experiment(settings),
        artifacts=artifact_folder(settings.tracking.uri),
        name=settings.name,
        identity={"kind": "search", IDENTITY: search_id},
        tags={"mlflow.runColor": SEARCH_COLOUR} | context_tags(str(facts.get("command") or "")) | tags,
        params={name: facts[name] for name in names if facts.get(name) is not None},
        dataset=dataset_input(settings, str(facts.get("dataset")), facts.get("fingerprint"), "search", profile),
        metrics=rounded_metrics({"domination_rank": -1}),
    )


def claim_metrics(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return what the claim of a search saves, as metrics; a claim that does not hold saves 0."""
    claim = facts.get("savings") or {}
    if not isinstance(claim.get("holds"), bool):
        return {}
    names = ("flops_saved", "latency_saved", "flops_saved_against_best_full_width")
    metrics = {f"{name}_at_equal_quality": float(claim.get(name) or 0) for name in names}
    return metrics | {"judges_disagree_on_pairs": float((claim.get("disagreements") or {}).get("pairs", 0))}


def run_note(snapshot: Snapshot, summary: str = "", parents: list[dict[str, str]] | None = None) -> str:
    """Return the parent run's note: the summary, the searches that it began from, and the front as a table."""
    lines = [summary, ""] if summary else []
    for parent in parents or []:
        link = f"#/experiments/{parent['experiment_id']}/runs/{parent['run_id']}"
        lines += [f"Started from the front of [{parent['name']}]({link}), search {parent['search_id']}.", ""]
    if len(snapshot.trials) >= TABLE_ROWS:
        lines += [
            f"MLflow's page lists and draws the first {TABLE_ROWS} runs: this one, and the best trials by rank and "
            f"cost. All {len(snapshot.trials):,} trials are in the artifacts `trials.json` and `report.html`.",
            "",
        ]
    features = snapshot.facts.get("features")
    fid = f"FID ({features})" if features else "FID"
    lines += [f"| trial | plan | GFLOPs | {fid} | |", "|---|---|---|---|---|"]
    samplers = sampler_texts(snapshot.front)
    for place, (_, row) in enumerate(snapshot.front.iterrows()):
        equal = int(row.get("within_noise", -1))
        remarks = [name for name in (str(row["label"]), f"within noise of trial {equal}" if equal >= 0 else "") if name]
        scores = f"{row['gflops']:.4g} | {row['fid']:.4g}"
        plan = "; ".join([f"`{row['plan']}`", *samplers[place : place + 1]])
        lines.append(f"| {row['trial']} | {plan} | {scores} | {'; '.join(remarks)} |")
    return "\n".join(lines)[:MAX_NOTE_CHARACTERS]
