"""The MLflow UI's saved view of a search: objectives in, the experiment tag that makes a link open on the front out.

The format is the UI's own and undocumented (seen in MLflow 3.17): should it change, the view is lost and nothing else.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

SERIES = ("hypervolume", "gflops_at_full_quality")


def saved_view(objectives: Sequence[str], axes: Sequence[str], search_id: str) -> dict[str, Any]:
    """The state of the runs page: the search's own run, then its trials, the front first; FID against each cost, the
    parameters named by `axes` in parallel, and the search's course."""
    charts = [_scatter(cost, "fid") for cost in ("gflops", "latency_ms")]
    charts.append(
        {
            **_chart("PARALLEL"),
            "selectedParams": list(axes),
            "selectedMetrics": ["gflops", "fid"],
            "showAllRuns": False,
        }
    )
    charts += [_course(name) for name in SERIES]
    return {
        "searchFilter": f"tags.search_id = '{search_id}'",
        "orderByKey": "metrics.`domination_rank`",
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
        "compareRunCharts": charts,
        "compareRunSections": [_section("front", "Front", 2), _section("course", "Course of the search", 2)],
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
    """Key and value of the experiment tag that holds the view: one view a search, so that FIDs of different data never
    share a chart."""
    now = int(time.time() * 1000)
    content = {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    return f"mlflow.sharedViewState.{search_id}", json.dumps(content)


def view_path(experiment_id: str, search_id: str) -> str:
    """The part of the link after the server's address."""
    query = f"workflowType=machine_learning&viewStateShareKey={search_id}&compareRunsMode=CHART"
    return f"/#/experiments/{experiment_id}/runs?{query}"


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


def _course(metric: str) -> dict[str, Any]:
    """A line over the evaluations; only the search's own run has one."""
    return {
        **_chart("LINE"),
        "metricSectionId": "course",
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
