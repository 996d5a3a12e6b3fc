"""What is sent to a cluster, what the head does with it, and what the verbs say where there is no cluster."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.search.cli.main import app
from stepfront.search.config import load_settings, settings_from
from stepfront.search.jobs.client import find_token, jobs_client
from stepfront.search.jobs.job_entrypoint import differing_versions, place_supernet
from stepfront.search.jobs.submit import entrypoint, on_cluster, pack, pinned_requirements, submit_job
from stepfront.trainers.networks.card import CARD_FILE, read_card
from tests.search.conftest import tiny_settings

SHARED = {"name": "mine", "directory": "/shared/runs"}


def test_a_job_is_its_source_its_settings_and_its_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    for name in ("runs", "data"):
        (here / name).mkdir(parents=True)
        (here / name / "heavy.bin").write_bytes(b"0" * 1000)
    monkeypatch.chdir(here)
    folder = tmp_path / "job"
    folder.mkdir()
    sent = pack(settings_from(SHARED), folder)
    assert sent == ("stepfront/", "job.yaml", "requirements.txt")
    assert {path.name for path in folder.iterdir()} == {name.rstrip("/") for name in sent}
    assert [path for path in folder.rglob("*") if path.is_symlink()] == []
    assert {"search", "trainers", "dashboards"} <= {path.name for path in (folder / "stepfront").iterdir()}
    assert not list(folder.rglob("heavy.bin"))
    assert not list(folder.rglob("__pycache__"))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3e6
    assert load_settings(folder / "job.yaml") == settings_from(SHARED)
    # It runs by itself, from its own copy.
    run = "import stepfront.search.cli.main as main, pathlib; print(pathlib.Path(main.__file__).parents[3])"
    assert Path(in_folder(folder, "-c", run).strip()) == folder
    assert "stepfront search" in " ".join(in_folder(folder, "-m", "stepfront", "search", "--help").split())


def in_folder(folder: Path, *arguments: str) -> str:
    """Return what Python prints in a job's folder, with only that folder and its own packages to import from."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env={"PATH": ""}, capture_output=True, text=True, check=True)
    return done.stdout


def test_requirements_are_pinned_to_what_runs_here_and_leave_ray_to_the_cluster() -> None:
    import numpy
    import optuna

    pins = pinned_requirements()
    assert f"numpy=={numpy.__version__}" in pins
    assert f"optuna=={optuna.__version__}" in pins
    assert not [pin for pin in pins if pin.startswith(("ray", "pytest", "ruff")) or "+" in pin]
    assert differing_versions("\n".join(pins)) == []
    assert differing_versions("numpy==0.1 no-such-package==3") == [
        f"numpy {numpy.__version__} (sent from 0.1)",
        "no-such-package none (sent from 3)",
    ]


def test_settings_are_made_those_of_the_head() -> None:
    there = on_cluster(settings_from(SHARED))
    assert there.workers.address == "auto"
    assert there.tracking.uri == "sqlite:////shared/runs/mlflow.db"
    assert there.data.cache == "/shared/runs/cache"
    database = ["storage=sqlite:////shared/a.db", "data.cache=/fast/cache", "initial_plans={'front:/shared/x': 4}"]
    given = on_cluster(settings_from(SHARED, database))
    assert (given.storage, given.data.cache) == ("sqlite:////shared/a.db", "/fast/cache")
    kept = on_cluster(settings_from(SHARED, ["tracking.uri=http://mlflow:5000", "workers.address=head:6379"]))
    assert (kept.tracking.uri, kept.workers.address) == ("http://mlflow:5000", "head:6379")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("directory=runs", "directory"),
        ("supernet=runs/x/supernet", "supernet"),
        ("data={format: idx, path: data/fashion}", "data.path"),
        ("features={name: inception, path: inception.pt}", "features.path"),
        ("storage=sqlite:///optuna.db", "storage"),
        ("training.start=runs/x/supernet", "training.start"),
        ("initial_plans={'front:runs/x': 4, uniform: 2}", "initial_plans"),
    ],
)
def test_a_path_that_would_go_with_the_job_is_refused(override: str, key: str) -> None:
    with pytest.raises(InputError, match=rf"{key} '.*' would be in the job's temporary folder"):
        on_cluster(settings_from(SHARED, [override]))


def test_a_job_does_its_steps_in_order() -> None:
    settings = settings_from({"name": "mine", "directory": "/shared/my runs"})
    assert entrypoint(settings, ["train", "search", "confirm"]) == (
        "python -m stepfront.search.jobs.job_entrypoint && "
        "python -m stepfront train job.yaml && python -m stepfront search job.yaml && "
        "python -m stepfront confirm '/shared/my runs/mine'"
    )
    with pytest.raises(InputError, match="a job can't do sleep; choose steps from train,search,confirm"):
        submit_job(settings, "http://127.0.0.1:9", ["sleep"])


def test_a_job_starts_from_earlier_searches_that_the_head_can_read() -> None:
    settings = settings_from(SHARED)
    earlier = ["/shared/my runs/digits", "s3://bucket/runs/faces", "auto"]
    assert entrypoint(settings, ["train", "search"], earlier).endswith(
        " && python -m stepfront search job.yaml --from '/shared/my runs/digits' --from s3://bucket/runs/faces"
        " --from auto"
    )
    with pytest.raises(InputError, match="--from 'runs/digits' would be in the job's temporary folder"):
        submit_job(settings, "http://127.0.0.1:9", earlier=["runs/digits"])
    with pytest.raises(InputError, match="--from needs the step search; this job does train,confirm"):
        submit_job(settings, "http://127.0.0.1:9", ["train", "confirm"], earlier=earlier)
    with pytest.raises(InputError, match="--from: ") as refused:
        submit_job(settings, "http://127.0.0.1:9", earlier=["s3://key:hush@bucket/runs/faces"])
    assert "hush" not in str(refused.value)


def test_a_supernet_travels_without_its_training_state_and_is_never_replaced(trained: Path, tmp_path: Path) -> None:
    supernet = trained / "tiny" / "supernet"
    folder = tmp_path / "job"
    folder.mkdir()
    assert pack(tiny_settings(tmp_path), folder, supernet)[-1] == f"supernet/ from {supernet}"
    names = {path.name for path in (folder / "supernet").iterdir()}
    assert {"supernet.json", "supernet.safetensors", "classifier.safetensors", "reference-classifier.npz"} <= names
    assert not {"checkpoint.safetensors", "lock"} & names
    there = tmp_path / "head" / "supernet"
    assert place_supernet(folder / "supernet", there)
    assert read_card(there).digest == read_card(supernet).digest
    assert not place_supernet(folder / "supernet", there)
    other = tmp_path / "other"
    shutil.copytree(folder / "supernet", other)
    card = other / "supernet.json"
    digest = read_card(supernet).digest
    write_text(card, card.read_text().replace(digest, "0" * len(digest)))
    with pytest.raises(InputError, match="holds another supernet than the one that was sent"):
        place_supernet(other, there)


def test_a_job_that_is_killed_while_it_places_a_supernet_leaves_none(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copyfile

    def killed(source: Path, place: Path) -> None:
        copy(source, place)
        if source.name == CARD_FILE:
            place.write_bytes(source.read_bytes()[:20])
            raise KeyboardInterrupt

    there = tmp_path / "supernet"
    monkeypatch.setattr(shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        place_supernet(trained / "tiny" / "supernet", there)
    assert not (there / CARD_FILE).exists()
    monkeypatch.undo()
    assert place_supernet(trained / "tiny" / "supernet", there)


def test_the_token_is_found_where_ray_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_token() == ("", "")
    default = tmp_path / ".ray" / "auth_token"
    default.parent.mkdir()
    default.write_text("of the home\n")
    assert find_token() == ("of the home", str(default))
    other = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    with pytest.raises(InputError, match="and there is no such file"):
        find_token()
    other.write_text("of the file")
    assert find_token() == ("of the file", str(other))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the variable")
    assert find_token() == ("of the variable", "RAY_AUTH_TOKEN")


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    """A server that is not a Ray dashboard."""

    def do_GET(self) -> None:
        body = b"<html>hello</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextlib.contextmanager
def served() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_no_cluster_is_said_in_one_line() -> None:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Ray dashboard answers at {nowhere}") as caught, jobs_client(nowhere):
            pass
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is not the address of a Ray dashboard"), jobs_client("ray://head:10001"):
        pass
    with (
        served() as other,
        pytest.raises(InputError, match=f"the server at {other} is not a Ray dashboard"),
        jobs_client(other),
    ):
        pass


def test_each_verb_has_an_example() -> None:
    for verb in ("submit", "status", "logs", "stop"):
        shown = CliRunner().invoke(app, [verb, "--help"]).output
        assert f"Example: stepfront {verb}" in " ".join(shown.split())


def test_a_job_may_keep_its_run_at_a_uri() -> None:
    settings = settings_from({"name": "digits", "directory": "s3://bucket/runs?region=x", "tracking": {"uri": None}})
    there = on_cluster(settings)
    assert there.run_place == "s3://bucket/runs/digits?region=x"
    assert entrypoint(there, ["confirm"]).endswith("python -m stepfront confirm 's3://bucket/runs/digits?region=x'")
    with pytest.raises(InputError, match="can hold no database: give an MLflow server"):
        on_cluster(settings_from({"name": "digits", "directory": "s3://bucket/runs"}))
