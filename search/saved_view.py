"""The MLflow UI's saved view of a search: objectives in, the experiment tag that makes a link open on the front out.

The format is the UI's own and undocumented (seen in MLflow 3.17): should it change, the view is lost and nothing else.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

VIEW_KEY = "stepfront"


def saved_view(objectives: Sequence[str], width_columns: int) -> dict[str, Any]:
    """The state of the runs page: trials only, the front first, FID against each cost, widths in parallel."""
    charts = [_scatter(cost, "fid") for cost in ("gflops", "latency_ms")]
    charts.append(
        {
            **_chart("PARALLEL"),
            "selectedParams": [f"w{i:02d}" for i in range(width_columns)],
            "selectedMetrics": ["gflops", "fid"],
            "showAllRuns": False,
        }
    )
    return {
        "searchFilter": "tags.kind = 'trial'",
        "orderByKey": "metrics.`domination_rank`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            *(f"metrics.`{name}`" for name in dict.fromkeys([*objectives, "latency_ms", "domination_rank"])),
            *("params.`plan`", "tags.`origin`", "params.`generation`"),
        ],
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": charts,
        "compareRunSections": [
            {"uuid": "front", "name": "Front", "display": True}
            | {"isReordered": False, "deleted": False, "isGenerated": False}
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": False,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def view_tag(state: dict[str, Any]) -> tuple[str, str]:
    """Key and value of the experiment tag that holds the view."""
    now = int(time.time() * 1000)
    content = {"name": "stepfront: the front", "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    return f"mlflow.sharedViewState.{VIEW_KEY}", json.dumps(content)


def view_path(experiment_id: str) -> str:
    """The part of the link after the server's address."""
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW_KEY}&compareRunsMode=CHART"
    return f"/#/experiments/{experiment_id}/runs?{query}"


def _chart(kind: str) -> dict[str, Any]:
    return {
        "uuid": str(uuid.uuid4()),
        "type": kind,
        "metricSectionId": "front",
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
    }


def _scatter(x: str, y: str) -> dict[str, Any]:
    return {**_chart("SCATTER"), "xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
