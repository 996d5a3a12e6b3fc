"""A search submitted to a real cluster of several raylets: over HTTP, with a token, on PostgreSQL and MLflow."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from stepfront.search.driver.train import run_training
from tests.cluster.conftest import Database, RayCluster, wait_for
from tests.search.conftest import TINY

pytestmark = pytest.mark.cluster

TRIALS = 30
SETTINGS = TINY | {
    "space": {"stages": 6},
    "budget": {"trials": TRIALS},
    "evaluation": {"images": 2500, "batch": 250},  # seconds: shorter than a worker takes to start
    "workers": {},
}

QUICK = ["--set", "evaluation.images=256"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, database: Database, mlflow_server: str) -> Path:
    """Return settings of a team: the search on a disk of all nodes, the study in PostgreSQL, the runs in MLflow."""
    folder = tmp_path_factory.mktemp("team")
    places = {"directory": str(folder / "runs"), "storage": database.url, "tracking": {"uri": mlflow_server}}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | places))
    return path


@pytest.fixture(scope="module")
def finished(cluster: RayCluster, config: Path) -> tuple[str, Path, str, dict[int, str]]:
    """Run a complete search, during which one node is lost and another joins.

    Returns the job's id, the search's directory, what the job printed, and the node of each worker process.
    """
    big = next(node for node in cluster.nodes.worker_nodes if (node._ray_params.resources or {}).get("big"))
    nodes = {"big": big.node_id}
    taken = cluster.stepfront("submit", str(config), "--do", "train,search")
    assert taken.returncode == 0, taken.stderr
    job = re.search(r"tiny-[0-9a-f]{12}", taken.stdout)
    assert job is not None
    begun = wait_for("the first trials", lambda: _done(cluster, job[0]) >= 3, 240)
    assert begun
    cluster.nodes.remove_node(big, allow_graceful=False)  # as a spot machine goes: at once
    nodes["new"] = cluster.add("new", cpus=2).node_id
    assert _done(cluster, job[0]) < TRIALS, "the search was over before the node had gone"
    end = cluster.stepfront("logs", job[0], "--follow")
    assert end.returncode == 0, end.stdout + end.stderr
    places = {actor["pid"]: actor["node_id"] for actor in _actors(cluster)}
    names = {node: name for name, node in nodes.items()}
    search = config.parent / "runs" / "tiny" / "search"
    return job[0], search, end.stdout, {pid: names.get(node, "small") for pid, node in places.items()}


def _done(cluster: RayCluster, job: str) -> int:
    said = cluster.stepfront("logs", job)
    assert "Traceback" not in said.stdout, said.stdout
    told = re.findall(r"(\d+)/\d+ trials", said.stdout)
    return int(told[-1]) if told else 0


def _actors(cluster: RayCluster) -> list[dict[str, object]]:
    from ray.util.state import list_actors

    actors = list_actors(cluster.address, limit=1000)
    return [{"pid": actor.pid, "node_id": actor.node_id, "class": actor.class_name} for actor in actors]


def test_a_lost_node_costs_no_trial_and_a_new_one_is_used(
    finished: tuple[str, Path, str, dict[int, str]],
) -> None:
    _, search, _, places = finished
    trials = pd.read_parquet(search / "trials.parquet")
    assert list(trials["state"]) == ["complete"] * TRIALS
    assert trials["genome"].is_unique
    by_node = trials["worker"].map(lambda worker: places[int(worker.rpartition(":")[2])]).value_counts()
    assert set(by_node.index) == {"big", "small", "new"}
    assert by_node["big"] < TRIALS / 2


def test_what_was_in_flight_on_the_lost_node_was_asked_again(
    finished: tuple[str, Path, str, dict[int, str]], config: Path
) -> None:
    import optuna

    from stepfront.search.config import load_settings
    from stepfront.search.study.optuna_storage import open_storage, study_name

    _, search, _, _ = finished
    storage = load_settings(config).storage
    study = optuna.load_study(study_name=study_name(storage, search), storage=open_storage(storage, search))
    attempts = [trial.user_attrs.get("attempt", 1) for trial in study.trials]
    assert len(attempts) == TRIALS
    assert 1 <= sum(attempt == 2 for attempt in attempts) <= 2, (
        "the two places of the lost node held a trial each at most"
    )
    assert max(attempts) == 2


def test_the_job_bears_the_id_of_its_search(finished: tuple[str, Path, str, dict[int, str]]) -> None:
    job, search, _, _ = finished
    assert job == f"tiny-{json.loads((search / 'search.json').read_text())['search_id']}"


def test_mlflow_has_every_trial(finished: tuple[str, Path, str, dict[int, str]], mlflow_server: str) -> None:
    from stepfront.search.mlflow_runs.client import make_client
    from stepfront.search.mlflow_runs.written import WrittenSearch

    _, search, _, _ = finished
    client, written = make_client(mlflow_server), WrittenSearch.read(search)
    run = client.get_run(written.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["evaluations"] == TRIALS
    children = client.search_runs([written.experiment_id], f"tags.mlflow.parentRunId = '{written.run_id}'")
    assert sorted(int(child.data.tags["trial"]) for child in children) == list(range(TRIALS))
    names = {artifact.path for artifact in client.list_artifacts(written.run_id)}
    assert {"report.html", "settings.yaml", "front.csv"} <= names


def test_no_secret_was_written_down(
    cluster: RayCluster, database: Database, mlflow_server: str, finished: tuple[str, Path, str, dict[int, str]]
) -> None:
    from urllib.parse import quote

    from stepfront.search.mlflow_runs.client import make_client
    from stepfront.search.mlflow_runs.written import WrittenSearch

    job, search, said, _ = finished
    secrets = [cluster.token_file.read_text(), database.password, quote(database.password, safe="")]
    written = WrittenSearch.read(search)
    client = make_client(mlflow_server)
    runs = client.search_runs([written.experiment_id], max_results=1000)
    told = [said, cluster.stepfront("status", job).stdout]
    told += [json.dumps(run.to_dictionary()) for run in runs]
    told += [json.dumps(dict(client.get_experiment(written.experiment_id).tags))]
    told += [path.read_bytes().decode("latin-1") for path in search.parent.rglob("*") if path.is_file()]
    session = Path(cluster.nodes.head_node.get_logs_dir_path())
    told += [path.read_bytes().decode("latin-1") for path in session.rglob("*") if path.is_file()]
    assert len(told) > 50
    assert "${STEPFRONT_TEST_DATABASE_PASSWORD}" in (search / "settings.yaml").read_text()
    for text in told:
        assert not any(secret in text for secret in secrets)


def test_a_stopped_search_goes_on_where_it_stood(cluster: RayCluster, config: Path) -> None:
    named = [*QUICK, "--set", "name=stopped", "--supernet", str(config.parent / "runs" / "tiny" / "supernet")]
    total = 300
    first = cluster.stepfront("submit", str(config), *named, "--set", f"budget.trials={total}")
    assert first.returncode == 0, first.stderr
    job = re.search(r"stopped-[0-9a-f]{12}", first.stdout)
    assert job is not None
    wait_for("the first trials", lambda: _done(cluster, job[0]), 120)
    assert "is being stopped" in cluster.stepfront("stop", job[0]).stdout
    wait_for("its end", lambda: "STOPPED" in cluster.stepfront("status", job[0]).stdout, 60)
    assert "was not running any more" in cluster.stepfront("stop", job[0]).stdout
    before = _done(cluster, job[0])
    more = cluster.stepfront("submit", str(config), *named, "--set", f"budget.trials={total}", "--follow")
    assert more.returncode == 0, more.stdout + more.stderr
    counts = [int(count) for count in re.findall(rf"(\d+)/{total} trials", more.stdout)]
    assert counts[0] > before
    trials = pd.read_parquet(config.parent / "runs" / "stopped" / "search" / "trials.parquet")
    assert list(trials["state"]) == ["complete"] * total


def test_a_training_that_spans_nodes_ends_with_the_weights_of_one_process(
    cluster: RayCluster, config: Path, tmp_path: Path
) -> None:
    """Three workers, of which no node has places for more than two."""
    # Not above: Ray has to be imported with the cluster's environment.
    from stepfront.search.config import load_settings

    spread = ["--set", "name=spread", "--set", "training.workers=3", "--set", "training.batch=18"]
    done = cluster.stepfront("submit", str(config), "--do", "train", *spread, "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    workers = [actor for actor in _actors(cluster) if "TrainWorker" in str(actor["class"])]
    assert len(workers) == 3
    assert len({actor["node_id"] for actor in workers}) == 2
    alone = ["training.batch=18", "tracking.uri=null", f"directory={tmp_path}", "storage=null"]
    run_training(load_settings(config, alone), False, lambda state: None, lambda text: None)
    ours = load_file(config.parent / "runs" / "spread" / "supernet" / "supernet.safetensors")
    theirs = load_file(tmp_path / "tiny" / "supernet" / "supernet.safetensors")
    assert ours.keys() == theirs.keys()
    for name, weights in ours.items():
        # Sums of three parts are rounded otherwise than one sum, twelve times over.
        torch.testing.assert_close(weights, theirs[name], rtol=1e-3, atol=1e-4)


def test_a_search_waits_for_the_first_node_of_a_cluster_that_grows_from_none(cluster: RayCluster, config: Path) -> None:
    for node in list(cluster.nodes.worker_nodes):
        cluster.nodes.remove_node(node)
    named = [*QUICK, "--set", "name=early", "--set", "budget.trials=6", "--set", "workers.count=2"]
    supernet = ["--supernet", str(config.parent / "runs" / "tiny" / "supernet")]
    taken = cluster.stepfront("submit", str(config), *named, *supernet)
    job = re.search(r"early-[0-9a-f]{12}", taken.stdout)
    assert job is not None, taken.stderr
    waits = "no node has room for a worker (1 CPUs, 0 GPUs); waiting"
    wait_for("the search to wait", lambda: waits in cluster.stepfront("logs", job[0]).stdout, 90)
    cluster.add("late", cpus=2)
    end = cluster.stepfront("logs", job[0], "--follow")
    assert end.returncode == 0, end.stdout + end.stderr
    trials = pd.read_parquet(config.parent / "runs" / "early" / "search" / "trials.parquet")
    assert list(trials["state"]) == ["complete"] * 6


@pytest.mark.parametrize(
    ("words", "environment", "says"),
    [
        (["status"], {"RAY_AUTH_TOKEN": "wrong"}, "refuses the token of RAY_AUTH_TOKEN"),
        (["status"], {"RAY_AUTH_TOKEN_PATH": "", "HOME": "/nowhere"}, "asks for its token"),
        (["status"], {"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, "/nowhere/token, and there is no such file"),
        (["status", "tiny-0"], {}, "has no job tiny-0"),
        (["logs", "tiny-0"], {}, "has no job tiny-0"),
        (["logs", "tiny-0", "--follow"], {}, "has no job tiny-0"),
        (["stop", "tiny-0"], {}, "has no job tiny-0"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(
    cluster: RayCluster, words: list[str], environment: dict[str, str], says: str
) -> None:
    done = cluster.stepfront(*words, **environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def test_nothing_listens_beyond_loopback(cluster: RayCluster) -> None:
    """Of all processes of the cluster's session."""
    session = cluster.nodes.head_node.get_session_dir_path()
    own = {
        pid.name
        for pid in Path("/proc").glob("[0-9]*")
        if session in _text(pid / "cmdline") or f"session_name={Path(session).name}" in _text(pid / "cmdline")
    }
    assert len(own) >= 5
    sockets = {link for pid in own for link in _links(Path("/proc") / pid / "fd")}
    listening = []
    for table in ("tcp", "tcp6"):
        for line in _text(Path("/proc/net") / table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                listening.append(fields[1].partition(":")[0])
    assert listening
    ours = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(listening) <= ours


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("latin-1")
    except OSError:
        return ""


def _links(folder: Path) -> list[str]:
    links = []
    try:
        for link in folder.iterdir():
            links.append(str(link.readlink()))
    except OSError:
        pass
    return links
