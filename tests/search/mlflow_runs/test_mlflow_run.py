"""One run, found by its tags or begun, and written to within MLflow's limits; and what a failure does to a writer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from stepfront.search.config import RunSettings, settings_from
from stepfront.search.mlflow_runs.background import BackgroundWriter
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.mlflow_run import (
    MAX_METRICS,
    MAX_PARAM_CHARACTERS,
    MlflowRun,
    RunStart,
    dataset_input,
    find_or_begin,
    finite_metrics,
)
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.written import NOTE_FILE, WrittenRun, WrittenSearch, WrittenTraining


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> RunSettings:
    set_environment()
    for name in ("mlflow.db", "other.db"):
        shutil.copy(empty_store, tmp_path / name)
    return settings_from({"tracking": {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}})


def start(settings: RunSettings, key: str) -> RunStart:
    data = dataset_input(settings, "digits", "ab" * 32, "training", {"images": 3})
    identity = {"kind": "training", "training_id": key}
    return RunStart("trainings", None, "mine", identity, {"dataset": "digits"}, {"long": "x" * 7000}, data)


def test_a_run_is_found_by_its_note_or_its_tags_and_begun_once(settings: RunSettings) -> None:
    client, written = make_client(settings.tracking.uri), WrittenRun()
    first, found = find_or_begin(client, written, start(settings, "a"))
    assert (found, written.run_id) == (False, first.run_id)
    for noted in (WrittenRun(written.experiment_id, written.run_id), WrittenRun()):
        again, found = find_or_begin(client, noted, start(settings, "a"))
        assert (found, again.run_id, noted) == (True, first.run_id, written)
    run = client.get_run(first.run_id)
    assert {"kind": "training", "training_id": "a", "dataset": "digits"}.items() <= run.data.tags.items()
    assert run.data.params == {"long": "x" * MAX_PARAM_CHARACTERS}
    assert [given.dataset.name for given in run.inputs.dataset_inputs] == ["digits"]


def test_a_run_whose_first_request_failed_gets_what_it_begins_with(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, written = make_client(settings.tracking.uri), WrittenRun()
    for name, noted in (("log_batch", written), ("log_inputs", WrittenRun())):
        given = start(settings, name)
        with monkeypatch.context() as broken:
            broken.setattr(client, name, lambda *given, **named: pytest.fail("gone"))
            with pytest.raises(pytest.fail.Exception):
                find_or_begin(client, noted, given)
        run, found = find_or_begin(client, noted, given)
        content = client.get_run(run.run_id)
        assert found
        assert content.data.params == {"long": "x" * MAX_PARAM_CHARACTERS}
        assert len(content.inputs.dataset_inputs) == 1


def test_the_note_of_another_run_or_of_another_store_is_not_believed(settings: RunSettings, tmp_path: Path) -> None:
    client, written = make_client(settings.tracking.uri), WrittenSearch()
    first, _ = find_or_begin(client, written, start(settings, "a"))
    written.children["0"] = "its trial"
    second, found = find_or_begin(client, written, start(settings, "b"))
    assert not found
    assert second.run_id != first.run_id
    assert written.children == {}
    other = make_client(f"sqlite:///{tmp_path / 'other.db'}")
    third, found = find_or_begin(other, written, start(settings, "b"))
    assert not found
    assert other.get_run(third.run_id).data.tags["training_id"] == "b"


def test_any_number_of_metrics_is_written_and_values_that_are_not_finite_are_not(settings: RunSettings) -> None:
    client = make_client(settings.tracking.uri)
    run = MlflowRun.begin(client, "0", "many", {})
    values = {f"m{i}": float(i) for i in range(2 * MAX_METRICS + 1)} | {"nan": float("nan"), "inf": float("inf")}
    run.log(finite_metrics(values))
    logged = client.get_run(run.run_id).data.metrics
    assert logged == {name: value for name, value in values.items() if name.startswith("m")}


def test_a_note_is_read_as_it_was_saved_and_a_damaged_one_is_empty(tmp_path: Path) -> None:
    written = WrittenTraining("1", "run", "key")
    written.save(tmp_path)
    assert WrittenTraining.read(tmp_path) == written
    written.forget()
    assert written == WrittenTraining(training_id="key")
    assert WrittenSearch.read(tmp_path) == WrittenSearch()  # the note of a training is none of a search
    (tmp_path / NOTE_FILE).write_text("{")
    assert WrittenTraining.read(tmp_path) == WrittenTraining()


def test_a_failure_is_a_line_and_the_runs_are_opened_again(settings: RunSettings) -> None:
    opened: list[Any] = []

    def open_runs(client: Any) -> int:
        opened.append(client)
        return len(opened)

    def fail(count: int) -> None:
        raise RuntimeError("first line\nsecond line")

    seen: list[int] = []
    writer = BackgroundWriter(settings.tracking.uri, open_runs)
    assert writer.write(seen.append)
    assert writer.write(seen.append)
    assert not writer.write(fail)
    assert writer.problem == f"MLflow at {settings.tracking.uri}: first line"
    writer.start(seen.append)
    assert writer.wait(60) == ""
    assert seen == [1, 1, 2]


def test_nothing_is_written_where_tracking_is_disabled() -> None:
    writer = BackgroundWriter(None, lambda client: pytest.fail("opened"))
    writer.start(lambda runs: pytest.fail("written"))
    assert (writer.write(lambda runs: pytest.fail("written")), writer.wait(60)) == (True, "")
