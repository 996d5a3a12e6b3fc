"""The saved view is written for the versions of MLflow whose UI state is known, and for no others."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
from pathlib import Path

import pytest

from benchmarks.tracking import made_up_search
from stepfront.search.config import settings_from
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.tracking.saved_view import LOG_FID, evenly, saved_view, view_is_known, view_path
from stepfront.search.tracking.search_runs import SearchRuns


def test_the_link_opens_on_the_view_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert view_is_known()
    assert "viewStateShareKey=abc" in view_path("7", "abc")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.0.1")
    assert not view_is_known()
    assert view_path("7", "abc") == "/#/experiments/7/runs"


def test_the_plans_have_a_page_width_and_axes_that_can_be_read() -> None:
    axes = ["steps", *(f"w{index:02d}" for index in range(10))]
    assert evenly(axes) == ["steps", "w01", "w03", "w05", "w07", "w09"]
    assert evenly(["w00"]) == ["w00"]
    state = saved_view(["fid", "gflops"], axes, "abc")
    (parallel,) = [chart for chart in state["compareRunCharts"] if chart["type"] == "PARALLEL"]
    (section,) = [one for one in state["compareRunSections"] if one["uuid"] == parallel["metricSectionId"]]
    assert section["columns"] == 1
    assert parallel["selectedMetrics"][-1] == "gflops"
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {"front", "plans", "history"}


def test_charts_draw_the_logarithm_of_fid_since_one_bad_score_would_flatten_them() -> None:
    charts = saved_view(["fid", "gflops"], ["w00"], "abc")["compareRunCharts"]
    assert [chart["yaxis"]["key"] for chart in charts if chart["type"] == "SCATTER"] == [LOG_FID, LOG_FID]
    assert [chart["selectedMetrics"][0] for chart in charts if chart["type"] == "PARALLEL"] == [LOG_FID]


def test_an_unknown_version_gets_no_view_and_one_line(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_environment()
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = settings_from({"name": "made-up", "directory": str(tmp_path), "tracking": {"uri": uri}})
    client, written, search = make_client(uri), WrittenSearch(), made_up_search(3)
    runs = SearchRuns(client, settings, written)
    runs.write(search)
    monkeypatch.setattr("stepfront.search.tracking.search_runs.view_is_known", lambda: False)
    with caplog.at_level(logging.WARNING, logger="stepfront"):
        runs.finish(search, tmp_path / "none", True, "")
    assert [record.message for record in caplog.records if record.name == "stepfront"] == [
        "no view was saved for the MLflow UI: its format is not known in this version"
    ]
    tags = client.get_experiment(written.experiment_id).tags
    assert not [key for key in tags if key.startswith("mlflow.sharedViewState")]
    assert client.get_run(written.run_id).info.status == "FINISHED"
    monkeypatch.undo()
    runs.finish(search, tmp_path / "none", True, "")
    tags = client.get_experiment(written.experiment_id).tags
    assert [key for key in tags if key.startswith("mlflow.sharedViewState")] == ["mlflow.sharedViewState.made-up-3"]
