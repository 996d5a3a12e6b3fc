"""A search in MLflow and in its report: written while it runs, published once, unharmed by a server that is away."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from stepfront.search.driver.publish import publish
from stepfront.search.driver.search import run_search
from tests.search.conftest import Silent, do_search, own_store, tiny_settings


def test_report_and_mlflow(fresh: Path, empty_store: Path) -> None:
    from mlflow import MlflowClient

    store = own_store(fresh, empty_store)
    settings, directory = tiny_settings(fresh, store), do_search(fresh, store)
    problem, opening = publish(settings, directory, True)
    assert problem == ""
    assert opening == f"stepfront ui {settings.run_directory}"
    report = (directory / "report.html").read_text(encoding="utf-8")
    for section in ("The front", "Width per step", "Images"):
        assert section in report
    client = MlflowClient(tracking_uri=settings.tracking.uri)
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("stepfront")]
    children = client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.kind = 'search'")
    trials = pd.read_parquet(directory / "trials.parquet").set_index("trial")
    assert {int(c.data.tags["trial"]) for c in children} == set(trials.index)
    for child in children:
        row = trials.loc[int(child.data.tags["trial"])]
        assert child.data.metrics["fid"] == pytest.approx(row["fid"], rel=1e-3)
        assert child.data.params["plan"] == row["plan"]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
    front = pd.read_parquet(directory / "front.parquet")
    assert {int(c.data.tags["trial"]) for c in children if c.data.metrics["domination_rank"] == 0} == set(
        front["trial"]
    )
    assert parent.info.status == "FINISHED"
    artifacts = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "front.parquet", "front.csv", "front.svg", "front.png", "trials.json"} <= artifacts
    search_id = parent.data.tags["search_id"]
    view = json.loads(client.get_experiment(experiment.experiment_id).tags[f"mlflow.sharedViewState.{search_id}"])
    assert json.loads(view["state"])["orderByKey"] == "metrics.`table_row`"
    publish(settings, directory, True)  # again: nothing twice
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")) == 9
    (directory / "mlflow.json").unlink()  # the server's own runs tell what is there
    publish(settings, directory, True)
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'trial'")) == 9


def test_an_mlflow_that_is_away_costs_no_trial(fresh: Path) -> None:
    settings = tiny_settings(fresh, "tracking.uri=http://127.0.0.1:9")
    directory = run_search(settings, False, Silent(), lambda text: None)
    assert len(pd.read_parquet(directory / "trials.parquet")) == 9
    problem, _ = publish(settings, directory, True)
    assert "127.0.0.1:9" in problem
    assert (directory / "report.html").exists()
