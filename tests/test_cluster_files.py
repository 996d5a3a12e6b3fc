"""The cluster's file against Ray's own schema and this repository's pins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from jsonschema.exceptions import ValidationError

ROOT = Path(__file__).resolve().parent.parent


def test_ray_cluster_is_valid_by_rays_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    # Ray fills AWS defaults with the cloud's own client, which needs no place here; the shape is checked all the same.
    config["provider"] = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": ["127.0.0.2"]}
    local = {key: value for key, value in config.items() if key not in ("available_node_types", "head_node_type")}
    validate_config(prepare_config(local))
    aws = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    whole = aws | {"cluster_synced_files": []}
    validate_config(whole)
    # The check is one that can fail: a fraction of a GPU belongs to a worker, not to a machine.
    whole["available_node_types"]["gpu_worker"]["resources"]["GPU"] = 0.5
    with pytest.raises(ValidationError, match="integer"):
        validate_config(whole)


def test_the_image_runs_the_pinned_ray() -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"rayproject/ray:{pinned[1]}-py311-gpu" in (ROOT / "ray_cluster.yaml").read_text()


def test_configs_are_valid_and_the_shipped_preset_is_the_one_in_configs() -> None:
    from search.config import load_settings
    from search.presets import preset

    for path in sorted((ROOT / "configs").glob("*.yaml")):
        load_settings(path)
    assert yaml.safe_load((ROOT / "configs" / "digits.yaml").read_text()) == preset("digits")


def test_no_index_address_in_the_pins() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "://" not in text
    assert "torch==2.13.0" in text.splitlines()
