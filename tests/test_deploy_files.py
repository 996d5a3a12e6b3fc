"""deploy/: the manifests of KubeRay and the compose file, against what they must hold to and against each other.

With STEPFRONT_SCHEMAS=DIR, also against the whole schemas: KubeRay's ray.io_rayclusters.yaml and ray.io_rayjobs.yaml
(ray-operator/config/crd/bases; last done with v1.7.0) and compose-spec.json, which are too large to keep here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stepfront.search.config import settings_from
from tests.test_cluster_files import pinned

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
SCHEMAS = os.environ.get("STEPFRONT_SCHEMAS")

Manifest = dict[str, Any]


def manifests(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all((DEPLOY / "kuberay" / name).read_text()))


def one(name: str, kind: str) -> Manifest:
    (found,) = [manifest for manifest in manifests(name) if manifest["kind"] == kind]
    return found


CLUSTERS = {
    "raycluster.yaml": one("raycluster.yaml", "RayCluster")["spec"],
    "rayjob.yaml": one("rayjob.yaml", "RayJob")["spec"]["rayClusterSpec"],
}


def mapping(**properties: Any) -> dict[str, Any]:
    """All of these keys may be there, and no other."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


TEXT, WHOLE = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
PODS = mapping(spec={"type": "object", "required": ["containers"]})
START = {"type": "object", "additionalProperties": TEXT}  # flags of `ray start`; a bare number would be refused
CLUSTER = mapping(
    rayVersion=TEXT,
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=mapping(version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=WHOLE),
    authOptions=mapping(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    headGroupSpec=mapping(rayStartParams=START, template=PODS) | {"required": ["template"]},
    workerGroupSpecs={
        "type": "array",
        "items": mapping(
            groupName=TEXT,
            priority=WHOLE,
            replicas=WHOLE,
            minReplicas=WHOLE,
            maxReplicas=WHOLE,
            rayStartParams=START,
            template=PODS,
        )
        | {"required": ["groupName", "maxReplicas", "minReplicas", "template"]},
    },
) | {"required": ["headGroupSpec"]}
JOB = mapping(
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=WHOLE,
    backoffLimit=WHOLE,
    rayClusterSpec=CLUSTER,
)
"""The part of KubeRay's schema that the manifests use, in our own words; the operator drops keys that it does not know,
in silence, which is why none may be there."""


def test_the_manifests_use_what_kuberay_knows() -> None:
    jsonschema.validate(one("raycluster.yaml", "RayCluster")["spec"], CLUSTER)
    job = one("rayjob.yaml", "RayJob")["spec"]
    jsonschema.validate(job, JOB)
    job["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(job, JOB)


@pytest.mark.skipif(SCHEMAS is None, reason="STEPFRONT_SCHEMAS names no folder with KubeRay's CRDs")
@pytest.mark.parametrize(("name", "kind"), [("raycluster.yaml", "RayCluster"), ("rayjob.yaml", "RayJob")])
def test_the_manifests_are_valid_by_the_whole_crds(name: str, kind: str) -> None:
    assert SCHEMAS is not None
    definition = yaml.safe_load((Path(SCHEMAS) / f"ray.io_{kind.lower()}s.yaml").read_text())
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(one(name, kind), schema)


def closed(schema: Any) -> Any:
    """Return an OpenAPI schema of Kubernetes as a JSON schema that refuses unknown keys."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(part) for key, part in schema.items()}
    if made.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@pytest.mark.skipif(SCHEMAS is None, reason="STEPFRONT_SCHEMAS names no folder with compose-spec.json")
def test_the_compose_file_is_valid_by_the_whole_schema() -> None:
    assert SCHEMAS is not None
    jsonschema.validate(compose(), json.loads((Path(SCHEMAS) / "compose-spec.json").read_text()))


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_grow_from_none_take_no_trial_on_the_head_and_ask_for_a_token(name: str) -> None:
    cluster = CLUSTERS[name]
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert all(group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"] for group in groups(cluster))
    assert cluster["authOptions"] == {"mode": "token", "secretName": "stepfront-ray"}
    assert cluster["rayVersion"] == pinned("ray")
    # GPUs are shared out whole, and what is asked for is what there may be.
    for group in groups(cluster):
        resources = group["template"]["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]


def groups(cluster: Manifest) -> list[Manifest]:
    found = cluster["workerGroupSpecs"]
    assert isinstance(found, list)
    return found


def test_what_the_manifests_name_is_there() -> None:
    everything = [m for name in ("services.yaml", "raycluster.yaml", "rayjob.yaml") for m in manifests(name)]
    claims = {m["metadata"]["name"] for m in everything if m["kind"] == "PersistentVolumeClaim"}
    maps = {m["metadata"]["name"] for m in everything if m["kind"] == "ConfigMap"}
    made = re.findall(r"create secret generic (\S+) --from-literal=([a-z_-]+)=", services_text())
    assert dict(made) == {"stepfront": "database-password", "stepfront-ray": "auth_token"}
    for pod in (pod for manifest in everything for pod in pods(manifest)):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in {None, *claims}
            assert volume.get("configMap", {}).get("name") in {None, *maps}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes)
            for entry in container.get("env", []):
                secret = entry.get("valueFrom", {}).get("secretKeyRef")
                assert secret is None or (secret["name"], secret["key"]) in made
    deployments = {m["spec"]["template"]["metadata"]["labels"]["app"] for m in everything if m["kind"] == "Deployment"}
    services = [m["spec"] for m in everything if m["kind"] == "Service"]
    assert {service["selector"]["app"] for service in services} == deployments
    assert all("type" not in service for service in services), "ClusterIP: nothing is reachable from outside"


def services_text() -> str:
    return (DEPLOY / "kuberay" / "services.yaml").read_text()


def pods(manifest: Any) -> Iterator[Manifest]:
    """All pod specs within a manifest."""
    if isinstance(manifest, dict):
        if "containers" in manifest:
            yield manifest
        for part in manifest.values():
            yield from pods(part)
    elif isinstance(manifest, list):
        for part in manifest:
            yield from pods(part)


def test_the_settings_of_the_job_are_valid_and_meet_its_services(monkeypatch: pytest.MonkeyPatch) -> None:
    from stepfront.addresses import resolved

    settings = settings_from(yaml.safe_load(one("rayjob.yaml", "ConfigMap")["data"]["search.yaml"]))
    head = CLUSTERS["rayjob.yaml"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert settings.workers.address == "auto"
    assert any(settings.directory.startswith(mount["mountPath"]) for mount in head["volumeMounts"])
    (name,) = [entry["name"] for entry in head["env"]]
    monkeypatch.setenv(name, "p/w")
    assert settings.storage is not None
    assert resolved(settings.storage) == "postgresql://stepfront:p%2Fw@postgres:5432/stepfront"
    assert settings.tracking.uri == "http://mlflow:5000"
    assert {m["metadata"]["name"] for m in manifests("services.yaml") if m["kind"] == "Service"} == {
        "postgres",
        "mlflow",
    }
    # KubeRay writes the entrypoint into a shell's command line, which would fill in a $ itself.
    assert "$" not in one("rayjob.yaml", "RayJob")["spec"]["entrypoint"]


def compose() -> Manifest:
    content = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    assert isinstance(content, dict)
    return content


def test_compose_opens_ports_on_loopback_alone_unless_told_otherwise() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(re.fullmatch(r"\$\{BIND:-127\.0\.0\.1\}:(\d+):\1", port) for port in ports)
    assert "BIND=127.0.0.1" in (DEPLOY / "compose" / "env.example").read_text().splitlines()


def test_compose_takes_every_secret_from_the_environment() -> None:
    services = compose()["services"]
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|ACCESS_KEY|URI", name):
                assert re.search(r"\$\{[A-Z_]+:\?", value), f"{name} is not demanded from the environment"
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / "compose" / "env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    asked = set(re.findall(r"(?<!\$)\$\{([A-Z_]+):", (DEPLOY / "compose" / "compose.yaml").read_text()))
    assert asked == set(example)
    assert not any(value for name, value in example.items() if "PASSWORD" in name)


def test_compose_waits_for_what_it_needs_and_runs_the_pinned_mlflow() -> None:
    content = compose()
    services = content["services"]
    needs = [(name, other, how) for name, s in services.items() for other, how in s.get("depends_on", {}).items()]
    for _, other, how in needs:
        healthy = how["condition"] == "service_healthy"
        assert ("healthcheck" in services[other]) if healthy else (services[other]["restart"] == "no")
    mounted = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert mounted == set(content["volumes"])
    build = services["mlflow"]["build"]
    assert (DEPLOY / "compose" / build["context"]).resolve() == DEPLOY.parent
    assert f"mlflow=={pinned('mlflow')} " in stages()[build["target"]]
    images = [service["image"] for service in services.values() if "image" in service]
    assert not any(image.endswith(":latest") or ":" not in image for image in images)


def stages() -> dict[str, str]:
    """Return the lines of each stage of the Dockerfile, by its name."""
    text = (DEPLOY.parent / "Dockerfile").read_text()
    return {stage.partition(" AS ")[2].split()[0]: stage for stage in text.split("\nFROM ")[1:]}


def test_the_image_of_the_manifests_has_their_ray_and_is_what_is_built_by_default() -> None:
    text = (DEPLOY.parent / "Dockerfile").read_text()
    (image,) = re.findall(r"^ARG RAY_IMAGE=(\S+)$", text, re.MULTILINE)
    assert image == f"rayproject/ray:{pinned('ray')}-py311-gpu"
    assert list(stages())[-1] == "stepfront"
    (tag,) = set(re.findall(r"image: (registry\S+)", "".join(p.read_text() for p in (DEPLOY / "kuberay").iterdir())))
    assert f"--target stepfront -t {tag} ." in text


def test_the_image_gets_all_that_an_installation_needs_and_no_run() -> None:
    from tests.test_packaging import FILES, SOURCES

    ignored = set((DEPLOY.parent / ".dockerignore").read_text().splitlines())
    assert ignored.isdisjoint({*FILES, *SOURCES} - {"tests"})
    assert {".git", ".venv", "runs", "data"} <= ignored
    assert "constraints.txt" in stages()["stepfront"]
