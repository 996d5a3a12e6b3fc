"""A server with users: an experiment per user, a check that really writes, and no dead link."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.search.config import RunSettings, settings_from
from stepfront.search.mlflow_runs import run_context
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.states import check_experiment, try_a_run
from stepfront.search.mlflow_runs.written import WrittenRun
from stepfront.search.tracking.experiments import search_experiment, training_experiment
from stepfront.search.tracking.server import open_ui
from stepfront.search.tracking.store_check import StoreCheck
from tests.search.tracking.mlflow_server import running
from tests.search.tracking.test_server import make_search


def settings_with(experiment: str | None, uri: str | None = None) -> RunSettings:
    return settings_from({"name": "mine", "tracking": {"uri": uri, "experiment": experiment}})


def test_an_experiment_is_named_after_user_run_and_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    given = settings_with("{user}: {name}, {space}")
    assert search_experiment(given) == "ada: mine, unet, 10 stages, any number of steps"
    assert training_experiment(given) == "ada: mine, unet, 10 stages, any number of steps, training"
    assert search_experiment(settings_with("a team")) == "a team"
    assert search_experiment(settings_with(None)) == "stepfront unet, 10 stages, any number of steps"
    for wrong in ("{team}", "{}", "{user"):
        with pytest.raises(InputError, match=r"unknown placeholder .* possible: \{name\}, \{space\} and \{user\}"):
            settings_with(wrong)


def test_the_check_writes_to_the_experiment_that_the_settings_name() -> None:
    with running() as server:
        check = StoreCheck(settings_with("theirs", server.address), WrittenRun(), trains=False, tries_a_run=True)
        assert check.found() == "the experiment 'theirs' can be written, a run was created and deleted"
    assert server.asked[-3:] == ["experiments/get-by-name", "runs/create", "runs/delete"]


@pytest.mark.parametrize("refused", ["experiments/set-experiment-tag", "runs/create"])
def test_a_refusal_is_one_line_with_a_remedy(refused: str) -> None:
    with running({refused: "PERMISSION_DENIED"}) as server:
        check = StoreCheck(settings_with("theirs", server.address), WrittenRun(), trains=False, tries_a_run=True)
        with pytest.raises(InputError, match=r"no permission to write to the experiment 'theirs'; .*\{user\}") as error:
            check.found()
    assert "\n" not in str(error.value)


def test_a_run_that_can_not_be_deleted_is_ended_and_said() -> None:
    with running({"runs/delete": "PERMISSION_DENIED"}) as server:
        client = make_client(server.address)
        assert check_experiment(client, "theirs", "now") == "the experiment 'theirs' can be written"
        assert "not deleted (that needs MANAGE)" in try_a_run(client, "theirs")
    assert "runs/update" in server.asked


def test_a_link_is_shown_only_where_its_run_is(tmp_path: Path) -> None:
    set_environment()
    with running() as server:
        search = make_search(tmp_path, server.address)
        (search / "mlflow.json").write_text(json.dumps({"experiment_id": "7"}))  # refused after the experiment
        with pytest.raises(InputError, match="not in MLflow yet; run `stepfront sync"):
            open_ui(search, "127.0.0.1", 5000, print)
        (search / "mlflow.json").write_text(json.dumps({"experiment_id": "7", "run_id": "r"}))
        said: list[str] = []
        open_ui(search, "127.0.0.1", 5000, said.append)
        assert said[0].startswith(f"{server.address}/#/experiments/7/runs?workflowType=machine_learning")
        assert "viewStateShareKey=made-up-4" in said[0]
        server.refuses["runs/get"] = "RESOURCE_DOES_NOT_EXIST"
        with pytest.raises(InputError, match="does not have the run of this search; run `stepfront sync"):
            open_ui(search, "127.0.0.1", 5000, print)
        server.refuses["runs/get"] = "PERMISSION_DENIED"
        with pytest.raises(InputError, match="no permission"):
            open_ui(search, "127.0.0.1", 5000, print)


def test_a_run_says_who_made_it_with_what_and_from_which_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    tags = run_context.context_tags("stepfront search mine.yaml")
    assert tags["mlflow.user"] == "ada"
    assert tags["mlflow.source.name"] == "stepfront search mine.yaml"
    checkout = (run_context.SOURCE_ROOT.parent / ".git").exists()
    assert len(tags.get("mlflow.source.git.commit", "")) == (40 if checkout else 0)
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.setattr(run_context.getpass, "getuser", lambda: "root")
    assert run_context.user_name() == "root"
