"""The clusters' files against Ray's own schema and this repository's pins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema.exceptions import ValidationError

ROOT = Path(__file__).resolve().parent.parent
FILES = ["ray_cluster.yaml", "ray_cluster.local.yaml"]


def read(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(content, dict)
    return content


def test_the_cluster_on_aws_is_valid_by_rays_schema() -> None:
    from ray.autoscaler._private.util import validate_config

    # Ray fills in AWS defaults with the cloud's own client, which is not needed here; the shape is checked.
    whole = read("ray_cluster.yaml") | {"cluster_synced_files": []}
    validate_config(whole)
    # The check is one that can fail: a fraction of a GPU belongs to a worker, not to a machine.
    whole["available_node_types"]["gpu_worker"]["resources"]["GPU"] = 0.5
    with pytest.raises(ValidationError, match="integer"):
        validate_config(whole)


def test_the_cluster_of_own_machines_is_valid_by_rays_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(read("ray_cluster.local.yaml"))
    validate_config(prepared)
    workers = prepared["available_node_types"]["local.cluster.node"]
    machines = prepared["provider"]["worker_ips"]
    assert workers["min_workers"] == workers["max_workers"] == prepared["max_workers"] == len(machines)
    assert prepared["provider"]["head_ip"] not in machines
    with pytest.raises(ValidationError, match="unexpected"):
        validate_config(prepared | {"max_worker": 3})


def test_workers_on_aws_come_from_none_and_the_head_takes_no_trial() -> None:
    cluster = read("ray_cluster.yaml")
    kinds = cluster["available_node_types"]
    assert kinds[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert kinds["gpu_worker"]["min_workers"] == 0
    assert kinds["gpu_worker"]["max_workers"] == cluster["max_workers"]
    assert kinds["gpu_worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    own = " ".join(read("ray_cluster.local.yaml")["head_start_ray_commands"])
    assert "--num-cpus=0" in own


@pytest.mark.parametrize("name", FILES)
def test_every_ray_start_has_a_token_and_the_dashboard_keeps_to_loopback(name: str) -> None:
    cluster = read(name)
    for where in ("head", "worker"):
        (start,) = [line for line in cluster[f"{where}_start_ray_commands"] if "ray start" in line]
        # A variable set for one command of several must be exported, or `ray start` does not see it.
        assert "export RAY_AUTH_MODE=token;" in start.partition("ray start")[0]
        assert "\n" not in start
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]
    mounts = cluster["file_mounts"]
    assert [place.rpartition("/.ray/")[2] for place in mounts] == ["auth_token"]
    assert list(mounts.values()) == ["~/.ray/auth_token"]


@pytest.mark.parametrize("name", FILES)
def test_the_files_say_what_to_edit_and_hold_nothing_of_anyone(name: str) -> None:
    text = (ROOT / name).read_text()
    assert text.count("EDIT") >= 5
    assert not re.search(r"AKIA[0-9A-Z]{16}|\bami-[0-9a-f]{8,}|\b\d{12}\b|BEGIN [A-Z ]*PRIVATE KEY", text)


def test_the_image_runs_the_pinned_ray() -> None:
    assert read("ray_cluster.yaml")["docker"]["image"] == f"rayproject/ray:{pinned('ray')}-py311-gpu"


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_configs_are_valid_and_the_shipped_preset_is_the_one_in_configs() -> None:
    from stepfront.search.config import load_settings
    from stepfront.search.presets import preset

    for path in sorted((ROOT / "configs").glob("*.yaml")):
        load_settings(path)
    assert yaml.safe_load((ROOT / "configs" / "digits.yaml").read_text()) == preset("digits")


def test_no_index_address_in_the_pins() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert "torch==2.13.0" in text.splitlines()
