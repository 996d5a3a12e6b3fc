"""Register a Pareto-front point as a version of an MLflow model, and keep the model's aliases up to date.

A version is an exported folder (program.py) with a pyfunc around it (exported/model.py), so it loads where this package
is not installed.  It is a logged model, too, which the runs of the search and of the training show.  The aliases knee,
best and cheapest follow the front: whenever a point is registered, each alias that the model already has moves to the
point that has the label now.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stepfront.addresses import is_uri, redacted
from stepfront.dashboards.claim import claim_sentence
from stepfront.errors import InputError
from stepfront.files import file_digest
from stepfront.search.export.logged_model import MODEL_TAG, log_point, show_in_run, show_version
from stepfront.search.export.mlflow_model import save_model
from stepfront.search.export.program import PLAN_FILE, point_facts, write_point
from stepfront.search.export.stored_files import POINT, Artifacts, ModelArtifacts, RunArtifacts, is_stored, mend_model
from stepfront.search.mlflow_runs.client import (
    check_store_exists,
    get_existing,
    make_client,
    tracking_uri,
)
from stepfront.search.mlflow_runs.copies import read_own_note
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.states import explained, is_refusal
from stepfront.search.mlflow_runs.written import WrittenSearch, WrittenTraining
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.problem.problem import SearchProblem
from stepfront.search.records.learnt_samplers import read_samplers
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import find_search
from stepfront.tables.points import pick_point
from stepfront.tables.search_tables import read_snapshot

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LABELS = ("knee", "best", "cheapest")
TAGS = ("search_id", "supernet_digest", "trial", "plan", "gflops", "fid", "fid_confirmed", "fid_low", "fid_high")
SAVED = ("flops_saved", "flops_saved_against_best_full_width", "latency_saved")


@dataclass(frozen=True)
class Registered:
    """What `register_point` did: the version that holds the point, and the aliases that moved.

    `moved` gives each alias its version before (None for a new alias) and now; `refused` are the runs that may not show
    the version, because they belong to somebody else.
    """

    model: str
    version: str
    new: bool
    point: dict[str, Any]
    moved: dict[str, tuple[str | None, str]]
    refused: tuple[str, ...] = ()


def register_point(path: Path, point: str, name: str | None = None) -> Registered:
    """Register a point of a search and bring the aliases in line with its front.

    A point that is registered already, with the same scores, gets no second version.  Raises InputError when the search
    is not in MLflow, when the name is not possible, or when the supernet is not the one that was searched.
    """
    directory, settings = find_search(path)
    front = read_snapshot(directory).front
    row = pick_point(front, point)
    uri = tracking_uri(settings.tracking.uri)
    written = read_own_note(directory, WrittenSearch, uri)
    if uri is None:
        raise InputError(
            "MLflow tracking is disabled for this search (tracking.uri: null), so there is nothing to register"
        )
    if not written.run_id:
        raise InputError(f"the search in {directory} is not in MLflow yet; run `stepfront sync {path}` first")
    check_store_exists(uri)
    model = name or f"stepfront-{settings.name}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._ -]*", model):
        raise InputError(f"{model!r} cannot be the name of a model; possible: letters, digits, spaces and . _ -")
    set_environment()
    problem = load_problem_of_search(settings, directory)
    try:
        registry = _Registry(make_client(uri), model, written.run_id, problem, directory)
        version, new = registry.version_of(row)
        moved = registry.move_aliases(front, row, version)
        return Registered(model, version, new, registry.facts_of(row), moved, tuple(registry.refused))
    except InputError:
        raise
    except Exception as error:  # whatever MLflow, its database or its server raises
        raise InputError(f"can't register at {redacted(uri)}: {explained(error, uri)}") from error


class _Registry:
    """One registered model and the search whose points go into it."""

    def __init__(self, client: MlflowClient, model: str, run_id: str, problem: SearchProblem, directory: Path) -> None:
        self._client, self._model, self._run_id = client, model, run_id
        self._problem, self._facts = problem, read_snapshot(directory).facts
        self._samplers = read_samplers(directory)
        self.refused: list[str] = []

    def facts_of(self, row: pd.Series) -> dict[str, Any]:
        return point_facts(row, self._facts)

    def version_of(self, row: pd.Series) -> tuple[str, bool]:
        """Return the version of the point with these scores; a new version, and True, where there is none."""
        with tempfile.TemporaryDirectory() as scratch:
            point = Path(scratch) / "point"
            content = write_point(self._problem, self._facts, row, plan_of_row(row, self._samplers), point)
            digest = file_digest(point / PLAN_FILE)
            found = self._client.search_model_versions(f"name = '{self._model}' and tags.digest = '{digest}'")
            folder = Path(scratch) / "model"
            if found and self._has_model(found[0]):
                self._complete(found[0], content, point, folder)
                self._tag_claim(str(found[0].version), row)
                if MODEL_TAG in found[0].tags:  # a call that was killed may not have got here
                    self._show(found[0].tags[MODEL_TAG], str(found[0].version))
                return str(found[0].version), False
            save_model(content, point, folder)
            tags = {key: _short(content["point"][key]) for key in TAGS if content["point"][key] is not None}
            tags |= {"digest": digest}
            logged = log_point(self._client, self._run_id, content["point"], tags, folder)
        # The registered model last: a disk that is full leaves none without a version.
        if get_existing(lambda: self._client.get_registered_model(self._model)) is None:
            self._client.create_registered_model(self._model, description=_description(self._facts))
        tags |= {key: value for key, value in claim_tags(self._facts, int(row["trial"])).items() if value}
        made = self._client.create_model_version(
            self._model,
            logged.artifact_location,
            self._run_id,
            tags=tags | {MODEL_TAG: logged.model_id},
            description=_version_description(content["point"]),
            model_id=logged.model_id,
        )
        self._show(logged.model_id, str(made.version))
        return str(made.version), True

    def _show(self, model_id: str, version: str) -> None:
        """Show the model in the runs of search and training, except those of others, and the version on its page."""
        for run_id in (self._run_id, self._training_run()):
            try:
                show_in_run(self._client, model_id, run_id)
            except Exception as error:  # of MLflow, or of the server before it
                if not is_refusal(error):
                    raise
                if run_id not in self.refused:
                    self.refused.append(run_id)
        show_version(self._client, model_id, self._model, version)

    def _training_run(self) -> str:
        """Return the run of the training in which the supernet was made; "" where it is unknown."""
        settings = self._problem.settings
        return "" if is_uri(settings.supernet_place) else WrittenTraining.read(settings.supernet_directory).run_id

    def _has_model(self, version: ModelVersion) -> bool:
        """Return False where the logged model of a version was deleted; older versions have none."""
        model_id = version.tags.get(MODEL_TAG)
        return not model_id or get_existing(lambda: self._client.get_logged_model(model_id)) is not None

    def _complete(self, version: ModelVersion, content: Mapping[str, Any], point: Path, folder: Path) -> None:
        """Store the files of a version again where they are damaged."""
        artifacts: Artifacts
        if MODEL_TAG in version.tags:
            artifacts, place = ModelArtifacts(self._client, version.tags[MODEL_TAG]), ""
        else:  # of before there were logged models
            artifacts = RunArtifacts(self._client, self._run_id)
            place = f"models/{version.source.rpartition('/')[2]}"
        if not is_stored(artifacts, point, f"{place}/{POINT}".lstrip("/")):
            save_model(content, point, folder)
            mend_model(artifacts, folder, place)

    def _tag_claim(self, version: str, row: pd.Series) -> None:
        """Bring the tags of a version in line with the claim as it is now."""
        for key, value in claim_tags(self._facts, int(row["trial"])).items():
            self._client.set_model_version_tag(self._model, version, key, value)

    def move_aliases(self, front: pd.DataFrame, row: pd.Series, version: str) -> dict[str, tuple[str | None, str]]:
        """Set the labels of the point as aliases, and move the aliases whose label is on another point now."""
        before = {str(k): str(v) for k, v in self._client.get_registered_model(self._model).aliases.items()}
        moved = {}
        for label in LABELS:
            if label in str(row["label"]).split(","):
                target = version
            elif label in before:
                target, _ = self.version_of(pick_point(front, label))
            else:
                continue
            if before.get(label) != target:
                self._client.set_registered_model_alias(self._model, label, target)
                moved[label] = (before.get(label), target)
        return moved


def claim_tags(facts: Mapping[str, Any], trial: int) -> dict[str, str]:
    """Return the tags of the point that a claim is made of: the claim as a sentence, and what it saves.

    They are empty for a point of which nothing is claimed, so that an earlier claim is not left on it.
    """
    claim = facts.get("savings") or {}
    holds = bool(claim.get("holds")) and claim.get("trial") == trial
    saved = {name: claim.get(name) if holds else None for name in SAVED}
    tags = {"claim": claim_sentence(claim) if holds else ""}
    return tags | {name: "" if value is None else _short(value) for name, value in saved.items()}


def _description(facts: Mapping[str, Any]) -> str:
    return (
        f"Points of the front of the search {facts.get('name')} ({facts.get('dataset')}). predict takes a table with "
        "columns seed, image and, where there are classes, label (both may be left out) and returns uint8 images "
        "[N, H, W, C]. Its parameter encoding: png asks for PNG files in base64, and device chooses a GPU or the CPU."
    )


def _short(value: Any) -> str:
    """Format a number with four digits; the model's own metadata has every digit."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version_description(point: Mapping[str, Any]) -> str:
    confirmed = point["fid_confirmed"]
    scores = f"{point['gflops']:.4g} GFLOPs, FID {point['fid']:.4g} ({point['features']})"
    if confirmed is not None:
        scores += f", on held-out noise {confirmed:.4g} [{point['fid_low']:.4g}, {point['fid_high']:.4g}]"
    return f"`{point['plan']}`: {scores}"
