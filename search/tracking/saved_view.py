"""Save a view of a search for the MLflow UI, as an experiment tag, so that a link opens on the front.

The format is the UI's internal state and is not documented (observed in MLflow 3.17).  It is written for known major
versions of MLflow alone; without it, only the view is missing.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

LOG_FID = "log10_fid"
"""Metric of a trial that the charts draw: scatter plots have no logarithmic axis, and one bad FID would flatten all."""

SERIES = ("hypervolume", "gflops_at_full_width_fid")
KNOWN_MAJOR_VERSIONS = ("3",)

MOST_AXES = 6
"""Axes of the parallel coordinates beside FID and GFLOPs whose labels can be read."""


def view_is_known() -> bool:
    """Return whether the installed MLflow has a major version whose UI state is known."""
    return importlib.metadata.version("mlflow").partition(".")[0] in KNOWN_MAJOR_VERSIONS


def saved_view(objectives: Sequence[str], axes: Sequence[str], search_id: str) -> dict[str, Any]:
    """Return the state of the runs page: the parent run, the front by cost, then the next ranks by cost.

    The charts are the logarithm of FID against each cost, the parameters `axes` as parallel coordinates, and the
    search's history.
    """
    return {
        "searchFilter": f"tags.search_id = '{search_id}'",
        "orderByKey": "metrics.`table_row`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            *(f"metrics.`{name}`" for name in dict.fromkeys([*objectives, "latency_ms", "domination_rank"])),
            *("tags.`point`", "params.`plan`", "tags.`origin`", "params.`generation`"),
        ],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": _charts(axes),
        "compareRunSections": [
            _section("front", "Front", 2),
            _section("plans", "Plans", 1),  # one column: twelve axes in half a page can't be read
            _section("history", "History of the search", 2),
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": False,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def view_tag(state: dict[str, Any], search_id: str, name: str) -> tuple[str, str]:
    """Return key and value of the experiment tag that holds the view.

    There is one view per search, so that FIDs of different data never share a chart.
    """
    now = int(time.time() * 1000)
    content = {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    return f"mlflow.sharedViewState.{search_id}", json.dumps(content)


def view_path(experiment_id: str, search_id: str) -> str:
    """Return the part of a link after the server's address: the search's view, or the runs where there is no view."""
    if not view_is_known():
        return f"/#/experiments/{experiment_id}/runs"
    query = f"workflowType=machine_learning&viewStateShareKey={search_id}&compareRunsMode=CHART"
    return f"/#/experiments/{experiment_id}/runs?{query}"


def _charts(axes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the charts of the view in their order."""
    charts = [_scatter(cost, LOG_FID) for cost in ("gflops", "latency_ms")]
    charts.append(
        {
            **_chart("PARALLEL"),
            "metricSectionId": "plans",
            "selectedParams": evenly(axes),
            "selectedMetrics": [LOG_FID, "gflops"],  # the last one colours the lines
            "showAllRuns": False,
        }
    )
    return charts + [_history(name) for name in SERIES]


def evenly(axes: Sequence[str]) -> list[str]:
    """Return the first and the last axis and even ones between, `MOST_AXES` at most."""
    count = min(len(axes), MOST_AXES)
    return [axes[round(place * (len(axes) - 1) / max(1, count - 1))] for place in range(count)]


def _section(key: str, name: str, columns: int) -> dict[str, Any]:
    shown = {"uuid": key, "name": name, "display": True, "columns": columns, "cardHeight": 380}
    return shown | {"isReordered": False, "deleted": False, "isGenerated": False}


def _chart(kind: str) -> dict[str, Any]:
    return {
        "uuid": str(uuid.uuid4()),
        "type": kind,
        "metricSectionId": "front",
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
    }


def _history(metric: str) -> dict[str, Any]:
    """Return a line over the evaluations; only the parent run has one."""
    return {
        **_chart("LINE"),
        "metricSectionId": "history",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "yAxisKey": "metric",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "selectedXAxisMetricKey": "",
        "useGlobalLineSmoothing": False,
        "useGlobalXaxisKey": False,
    }


def _scatter(x: str, y: str) -> dict[str, Any]:
    return {**_chart("SCATTER"), "xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
