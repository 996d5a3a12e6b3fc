"""Gauges of a running search, from Ray's endpoint to the Grafana dashboard.

Tested are the values, Ray's exposition endpoint, a Prometheus that scrapes it, and the dashboard over both.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.tracking import made_up_search, until
from stepfront.search.execution.prometheus import GAUGES, RECENT, TAGS, Gauges, GaugeValue, gauge_values
from stepfront.tables.search_tables import Snapshot

GRAFANA = Path(__file__).parents[3] / "dashboards" / "grafana"
QUEUE = {"stepfront_in_flight", "stepfront_interrupted"}
NEEDS_GPU = ("ray_node_gpus_", "ray_node_gram_")

Values = dict[tuple[str, str], float]
"""Of each gauge, by its name and its second tag."""


def values(found: list[GaugeValue]) -> Values:
    return {(reading.name, reading.of): reading.value for reading in found}


def dashboard() -> dict[str, Any]:
    return json.loads((GRAFANA / "stepfront.json").read_text())


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def with_full_width(whole: Snapshot) -> Snapshot:
    facts = dict(whole.facts) | {"full": {"fid": float(whole.trials["fid"].median())}}
    return Snapshot(whole.trials, whole.progress, whole.front, facts)


def test_every_gauge_has_the_value_of_the_tables() -> None:
    whole = with_full_width(made_up_search(40))
    found = values(gauge_values(whole, 7))
    assert {name for name, _ in found} == set(GAUGES) - QUEUE
    assert found["stepfront_evaluations", ""] == 40
    assert found["stepfront_failed", ""] == 0
    assert found["stepfront_front_size", ""] == len(whole.front)
    assert found["stepfront_hypervolume", ""] == whole.progress["hypervolume"].iloc[-1]
    assert found["stepfront_best_fid", ""] == whole.trials["fid"].min()
    assert found["stepfront_mlflow_waiting", ""] == 7
    good = whole.trials[whole.trials["fid"] <= whole.facts["full"]["fid"]]
    assert found["stepfront_gflops_at_full_width_fid", ""] == good["gflops"].min()


def test_a_gauge_without_a_value_is_left_out() -> None:
    whole = made_up_search(40)
    never = Snapshot(whole.trials, whole.progress, whole.front, dict(whole.facts) | {"full": {}})
    missing = set(GAUGES) - QUEUE - {reading.name for reading in gauge_values(never, 0)}
    assert missing == {"stepfront_gflops_at_full_width_fid"}


def test_the_parts_of_recent_evaluations_sum_to_their_seconds() -> None:
    whole = made_up_search(40)
    rng = np.random.default_rng(0)
    for part in ("sampling", "features", "distance"):
        whole.trials[f"{part}_seconds"] = rng.uniform(0, 0.2, 40)
    found = values(gauge_values(whole, 0))
    parts = {of: value for (name, of), value in found.items() if name == "stepfront_part_seconds"}
    assert set(parts) == {"sampling", "features", "distance", "other"}
    assert sum(parts.values()) == pytest.approx(found["stepfront_evaluation_seconds", ""])
    assert parts["features"] == pytest.approx(whole.trials["features_seconds"].tail(RECENT).mean())


def test_a_search_older_than_the_parts_has_no_gauge_of_them() -> None:
    whole = made_up_search(40)
    whole.trials[["sampling_seconds", "features_seconds", "distance_seconds"]] = np.nan
    assert "stepfront_part_seconds" not in {reading.name for reading in gauge_values(whole, 0)}


def test_spared_calls_are_a_share_of_all_that_the_plans_need() -> None:
    whole = made_up_search(40)
    whole.trials["calls"], whole.trials["calls_saved"] = 30, 10
    assert values(gauge_values(whole, 0))["stepfront_calls_spared", ""] == 0.25


def test_a_worker_that_was_lost_keeps_no_prefixes() -> None:
    whole = made_up_search(100)  # a trial each second
    whole.trials["worker"] = ["lost"] * 20 + ["a", "b"] * 40
    whole.trials["prefix_mb"] = np.arange(100.0)
    found = values(gauge_values(whole, 0))
    kept = {of: value for (name, of), value in found.items() if name == "stepfront_prefix_mb"}
    assert kept == {"a": 98.0, "b": 99.0}  # as each was last heard of


def test_the_dashboard_draws_every_gauge_and_no_other() -> None:
    drawn = set(re.findall(r"ray_(stepfront_\w+)", json.dumps(dashboard())))
    assert drawn == set(GAUGES)
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)  # no panel covers another
    assert max(x for x, _ in cells) < 24  # Grafana's grid
    for panel in panels:
        for target in panel["targets"]:
            tag = next((tag for name, tag in TAGS.items() if f"ray_{name}{{" in target["expr"]), "search")
            assert "{{" + tag + "}}" in target["legendFormat"] or "stepfront" not in target["expr"]
    for path in (GRAFANA / "provisioning").rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1


def test_alerts_name_what_is_exported() -> None:
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    rules = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())["groups"][0]["rules"]
    named = {name for rule in rules for name in re.findall(r"ray_([a-z_]+)", rule["expr"])}
    own = {name for name in named if name.startswith("stepfront_")}
    assert own == named & set(GAUGES)
    assert len(own) >= 4
    assert named - own <= set(METRICS_GAUGES)
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "description"}
        if "search" in rule["annotations"]["summary"]:
            assert "{{ $labels.search }}" in rule["annotations"]["summary"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool is installed")
def test_promtool_accepts_the_alerts() -> None:
    subprocess.run(["promtool", "check", "rules", str(GRAFANA / "alerts.yaml")], check=True, capture_output=True)


def test_grafanas_own_schema_knows_every_key_of_the_dashboard() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed")
    from grafana_foundation_sdk.cog import encoder, plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()

    def read(content: dict[str, Any]) -> Any:
        return json.loads(encoder.JSONEncoder().encode(Dashboard.from_json(content)))

    def kept(given: Any, back: Any) -> bool:
        if isinstance(given, dict):
            return isinstance(back, dict) and all(key in back and kept(given[key], back[key]) for key in given)
        if isinstance(given, list):
            return len(given) == len(back) and all(map(kept, given, back))
        return given == back

    ours = dashboard()
    assert kept(ours, read(ours))
    ours["panels"][0]["gridpos"] = ours["panels"][0].pop("gridPos")
    assert not kept(ours, read(ours))  # a key that Grafana does not know is dropped


@dataclass(frozen=True)
class Exposed:
    """A search whose gauges Ray exports, and where."""

    address: str
    expected: Values


@pytest.fixture(scope="module")
def exposed(cluster: None) -> Exposed:
    import ray

    snapshot = with_full_width(until(made_up_search(40), 20))
    gauges = Gauges("exposed")
    gauges.tables(snapshot, 3)
    gauges.queue(SimpleNamespace(in_flight=2, interrupted=1))  # type: ignore[arg-type]
    node = ray.nodes()[0]
    queue = {("stepfront_in_flight", ""): 2.0, ("stepfront_interrupted", ""): 1.0}
    return Exposed(
        f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}", values(gauge_values(snapshot, 3)) | queue
    )


def get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return str(opener.open(url, timeout=10).read().decode())


def exposition(address: str) -> tuple[str, Values]:
    text = get(f"http://{address}/metrics")
    found = {}
    for name, tags, value in re.findall(r"^ray_(stepfront_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        tag = dict(re.findall(r'(\w+)="([^"]*)"', tags))
        if tag.get("search") == "exposed":
            found[name, tag[TAGS[name]] if name in TAGS else ""] = float(value)
    return text, found


def test_ray_exposes_them(exposed: Exposed) -> None:
    text, found = "", {}
    for _ in range(90):  # Ray reports every ten seconds
        text, found = exposition(exposed.address)
        if len(found) == len(exposed.expected):
            break
        time.sleep(1)
    assert found == pytest.approx(exposed.expected)
    for own in ("ray_node_cpu_utilization", "ray_node_mem_used"):
        assert re.search(rf"^{own}\{{", text, re.MULTILINE), own


@pytest.fixture
def prometheus(exposed: Exposed, tmp_path: Path) -> Iterator[str]:
    """Run a Prometheus that scrapes Ray each second, and return the address of its API."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus is installed (Debian: apt-get install prometheus)")
    scrape = {"job_name": "ray", "scrape_interval": "1s", "static_configs": [{"targets": [exposed.address]}]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [program, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield f"http://{address}/api/v1"
    finally:
        server.terminate()
        server.wait(30)


def test_prometheus_answers_every_expression_of_the_dashboard(exposed: Exposed, prometheus: str) -> None:
    def ask(path: str, **parameters: str) -> Any:
        try:
            answer = json.loads(get(f"{prometheus}/{path}?{urllib.parse.urlencode(parameters)}"))
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        assert answer["status"] == "success", answer
        return answer["data"]

    def result(expression: str) -> list[dict[str, Any]]:
        return list(ask("query", query=expression.replace("$search", "exposed"))["result"])

    until_all = time.monotonic() + 120
    missing = expressions()
    while missing and time.monotonic() < until_all:
        with contextlib.suppress(OSError):  # it is still starting
            missing = [one for one in missing if not result(one) and not one.startswith(NEEDS_GPU)]
        time.sleep(1)
    assert not missing, "without data"
    found: Values = {}
    for expression in expressions():  # each parses, GPU or not
        for one in result(expression):
            name = one["metric"].get("__name__", "").removeprefix("ray_")
            if name in GAUGES:
                found[name, one["metric"].get(TAGS.get(name, ""), "")] = float(one["value"][1])
    assert found == pytest.approx(exposed.expected)
    variable = next(v for v in dashboard()["templating"]["list"] if v["name"] == "search")["query"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable).groups()  # type: ignore[union-attr]
    assert "exposed" in ask(f"label/{label}/values", **{"match[]": metric})
