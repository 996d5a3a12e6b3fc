"""Gauges of a running search: their values, Ray's exposition endpoint, and the Grafana dashboard that reads them."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from benchmarks.tracking import made_up_search, until
from search.metrics import GAUGES, export_gauges, gauge_values
from search.tables import Snapshot

GRAFANA = Path(__file__).parents[2] / "dashboards" / "grafana"


def test_every_gauge_has_the_value_of_the_tables() -> None:
    whole = made_up_search(40)
    full = float(whole.trials["fid"].median())
    whole = Snapshot(whole.trials, whole.progress, whole.front, dict(whole.facts) | {"full": {"fid": full}})
    values = gauge_values(whole, 7)
    assert set(values) == set(GAUGES)
    assert values["stepfront_evaluations"] == 40
    assert values["stepfront_failed"] == 0
    assert values["stepfront_front_size"] == len(whole.front)
    assert values["stepfront_hypervolume"] == whole.progress["hypervolume"].iloc[-1]
    assert values["stepfront_best_fid"] == whole.trials["fid"].min()
    assert values["stepfront_mlflow_waiting"] == 7
    good = whole.trials[whole.trials["fid"] <= full]
    assert values["stepfront_gflops_at_full_quality"] == good["gflops"].min()


def test_a_gauge_without_a_value_is_left_out() -> None:
    whole = made_up_search(40)
    never = Snapshot(whole.trials, whole.progress, whole.front, dict(whole.facts) | {"full": {}})
    assert set(GAUGES) - set(gauge_values(never, 0)) == {"stepfront_gflops_at_full_quality"}


def test_the_dashboard_draws_every_gauge_and_no_other() -> None:
    dashboard = json.loads((GRAFANA / "stepfront.json").read_text())
    drawn = set(re.findall(r"ray_(stepfront_\w+)", json.dumps(dashboard)))
    assert drawn == set(GAUGES)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(set(places)) == len(places)
    for path in (GRAFANA / "provisioning").rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1


def test_ray_exposes_them(cluster: None) -> None:
    import ray

    snapshot = until(made_up_search(40), 20)
    expected = gauge_values(snapshot, 3)
    export_gauges("exposed", snapshot, 3)
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    found: dict[str, float] = {}
    for _ in range(90):  # Ray reports every ten seconds
        text = opener.open(address, timeout=10).read().decode()
        lines = re.findall(r'^ray_(stepfront_\w+)\{.*search="exposed".*\} (\S+)$', text, re.MULTILINE)
        found = {name: float(value) for name, value in lines}
        if len(found) == len(expected):
            break
        time.sleep(1)
    assert found == pytest.approx(expected)
    for own in ("ray_node_cpu_utilization", "ray_node_mem_used"):
        assert re.search(rf"^{own}\{{", text, re.MULTILINE), own
