"""A search's MLflow runs against a real store: how many requests, what after a kill, what of parents and labels."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from benchmarks.tracking import made_up_search, until
from stepfront.search.config import RunSettings, save_settings, settings_from
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.open_client import set_environment
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.pareto import domination_rank
from stepfront.search.tracking.search_mirror import SearchMirror
from stepfront.search.tracking.search_runs import SearchRuns, run_note
from stepfront.search.tracking.trial_runs import AT_FULL_QUALITY, plan_params, rounded_metrics, shown_steps
from stepfront.tables.search_tables import Snapshot


class Counting:
    """A client that counts the calls that reach the store."""

    def __init__(self, client: Any) -> None:
        self.client, self.calls = client, Counter[str]()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self.calls[name] += 1
        return getattr(self.client, name)  # type: ignore[no-any-return]


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> RunSettings:
    set_environment()
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return settings_from(
        {"name": "made-up", "directory": str(tmp_path), "tracking": {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}}
    )


def children(settings: RunSettings, written: WrittenSearch) -> list[Any]:
    which = f"tags.mlflow.parentRunId = '{written.run_id}'"
    return list(make_client(settings.tracking.uri).search_runs([written.experiment_id], which))


def test_a_trial_is_three_requests_and_one_more_when_it_joins_or_leaves_the_front(settings: RunSettings) -> None:
    whole, written = made_up_search(40), WrittenSearch()
    client = Counting(make_client(settings.tracking.uri))
    runs = SearchRuns(client, settings, written)  # type: ignore[arg-type]
    runs.find(until(whole, 20))
    client.calls.clear()
    runs.write(until(whole, 20))
    assert client.calls == {"create_run": 20, "log_batch": 20 + 1, "set_terminated": 20}
    before = dict(written.ranks)
    client.calls.clear()
    runs.write(whole)
    changed = sum((written.ranks[trial] == 0) != (rank == 0) for trial, rank in before.items())
    assert changed
    assert client.calls == {"create_run": 20, "log_batch": 20 + changed + 1, "set_terminated": 20}
    client.calls.clear()
    runs.write(whole)
    assert not client.calls


def test_ranks_and_colours_are_those_of_the_last_snapshot(settings: RunSettings) -> None:
    whole, written = made_up_search(30), WrittenSearch()
    client = make_client(settings.tracking.uri)
    runs = SearchRuns(client, settings, written)
    runs.find(whole)
    for count in (10, 20, 30):
        runs.write(until(whole, count))
    front = set(whole.front["trial"])
    for run in children(settings, written):
        assert (run.data.metrics["domination_rank"] == 0) == (int(run.data.tags["trial"]) in front)
    runs.finish(whole, Path(settings.directory) / "none", True, "")
    ranks = domination_rank(whole.trials[["fid", "gflops"]].to_numpy())
    for run in children(settings, written):
        assert run.data.metrics["domination_rank"] == ranks[int(run.data.tags["trial"])]
        assert run.data.metrics["log10_fid"] == pytest.approx(math.log10(run.data.metrics["fid"]), abs=1e-3)
        on_front = int(run.data.tags["trial"]) in front
        assert (run.data.metrics["domination_rank"] == 0) == on_front
        assert (run.data.tags["mlflow.runColor"] == "#d55e00") == on_front


def test_the_table_shows_the_front_by_cost_and_then_the_next_ranks(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("trial_runs", "search_runs"):
        monkeypatch.setattr(f"stepfront.search.tracking.{module}.TABLE_ROWS", 12)
    whole, written = made_up_search(18), WrittenSearch()
    client = Counting(make_client(settings.tracking.uri))
    runs = SearchRuns(client, settings, written)  # type: ignore[arg-type]
    runs.find(whole)
    early = until(whole, 13)
    for snapshot in (early, whole):
        runs.write(snapshot)
        runs.finish(snapshot, Path(settings.directory) / "none", True, "")
    shown = make_client(settings.tracking.uri).search_runs(
        [written.experiment_id], order_by=["metrics.`table_row` ASC"], max_results=12
    )
    assert shown[0].info.run_id == written.run_id
    places = [(run.data.metrics["domination_rank"], run.data.metrics["gflops"]) for run in shown[1:]]
    assert places == sorted(places)
    front = whole.front.sort_values("gflops")["trial"].tolist()
    assert [int(run.data.tags["trial"]) for run in shown[1 : 1 + len(front)]] == front
    note = shown[0].data.tags["mlflow.note.content"]
    assert "the first 12 runs" in note
    assert "All 18 trials are in the artifacts" in note
    assert "first 12 runs" not in run_note(made_up_search(11))
    calls = dict(client.calls)
    runs.finish(whole, Path(settings.directory) / "none", True, "")
    assert client.calls["log_batch"] == calls["log_batch"] + 1  # the note alone


def test_a_driver_killed_before_it_noted_anything_down_writes_nothing_twice(
    settings: RunSettings, tmp_path: Path
) -> None:
    whole, written = made_up_search(8), WrittenSearch()
    client = make_client(settings.tracking.uri)
    runs = SearchRuns(client, settings, written)
    runs.find(whole)
    noted = WrittenSearch(written.experiment_id, written.run_id)  # what mlflow.json holds: the run, and no child
    runs.write(whole)
    left_open = client.create_run(
        written.experiment_id, tags={"mlflow.parentRunId": written.run_id, "trial": "8", "kind": "trial"}
    )
    (tmp_path / "mlflow.json").write_text(json.dumps(noted.__dict__))
    mirror = SearchMirror(settings, tmp_path)
    assert mirror.close(whole, tmp_path, True) == ""
    found = children(settings, mirror.written)
    assert sorted(int(run.data.tags["trial"]) for run in found) == list(range(8))
    assert left_open.info.run_id not in {run.info.run_id for run in found}
    for name in ("hypervolume", "best_fid"):
        assert [point.step for point in client.get_metric_history(written.run_id, name)] == list(range(1, 9))


def test_a_child_that_was_deleted_in_mlflow_is_written_again_with_all_that_it_held(
    settings: RunSettings, tmp_path: Path
) -> None:
    whole = made_up_search(6)
    trial = int(whole.front["trial"].iloc[0])
    front = whole.front.assign(fid_confirmed=12.345)
    facts = dict(whole.facts) | {"savings": {"trial": trial, "holds": True}}
    snapshot = Snapshot(whole.trials.assign(fid=whole.trials["fid"] / 1e6), whole.progress, front, facts)

    def sync() -> tuple[WrittenSearch, dict[int, Any]]:
        mirror = SearchMirror(settings, tmp_path)
        assert mirror.close(snapshot, tmp_path / "none", True) == ""
        runs = children(settings, mirror.written)
        return mirror.written, {int(run.data.tags["trial"]): run for run in runs if "trial" in run.data.tags}

    written, before = sync()
    client = make_client(settings.tracking.uri)
    client.delete_run(before[trial].info.run_id)
    client.create_run(written.experiment_id, tags={"mlflow.parentRunId": written.run_id})  # a user's own
    _, after = sync()
    assert after.keys() == before.keys()
    assert after[trial].info.run_id != before[trial].info.run_id
    assert {"fid_confirmed", "table_row", "domination_rank"} <= after[trial].data.metrics.keys()
    assert after[trial].data.metrics == before[trial].data.metrics
    assert AT_FULL_QUALITY in after[trial].data.tags["point"]
    table = json.loads(Path(client.download_artifacts(written.run_id, "trials.json", str(tmp_path))).read_text())
    shown = [row[table["columns"].index("fid")] for row in table["data"]]
    assert shown == pytest.approx(snapshot.trials["fid"].tolist(), rel=1e-6)
    assert [metric.value for metric in rounded_metrics({"a": 12_345, "b": 0.123456})] == [12_345, 0.1235]


def test_what_is_written_again_is_there_once(
    settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow drops a point that equals another one to the millisecond: no two have the same time here.
    clock = itertools.count(1_700_000_000_000)
    ticking = SimpleNamespace(time=lambda: next(clock) / 1000)
    monkeypatch.setattr("stepfront.search.mlflow_runs.mlflow_run.time", ticking)
    whole = made_up_search(4)
    for _ in range(2):  # as `stepfront sync` does, twice
        mirror = SearchMirror(settings, tmp_path)
        assert mirror.close(whole, tmp_path / "none", True) == ""
    client, run = make_client(settings.tracking.uri), mirror.written.run_id
    table = json.loads(Path(client.download_artifacts(run, "trials.json", str(tmp_path))).read_text())
    assert [row[table["columns"].index("trial")] for row in table["data"]] == list(range(4))
    names = client.get_run(run).data.metrics
    assert {"failed", "evaluations", "hypervolume", "table_row"} <= names.keys()
    for name in names:
        steps = [point.step for point in client.get_metric_history(run, name)]
        assert len(steps) == len(set(steps)), name


def test_the_data_of_a_search_are_an_input_of_its_run(settings: RunSettings) -> None:
    whole, written = made_up_search(3), WrittenSearch()
    facts = dict(whole.facts) | {"fingerprint": "ab" * 32}
    client = make_client(settings.tracking.uri)
    runs = SearchRuns(client, settings, written)
    runs.find(Snapshot(whole.trials, whole.progress, whole.front, facts))
    (given,) = client.get_run(written.run_id).inputs.dataset_inputs
    assert given.dataset.name == "digits"
    assert given.dataset.digest == ("ab" * 32)[:36]
    assert json.loads(given.dataset.source)["fingerprint"] == "ab" * 32


def test_the_series_of_the_issue_are_on_the_parent(settings: RunSettings) -> None:
    whole, written = made_up_search(10), WrittenSearch()
    client = make_client(settings.tracking.uri)
    runs = SearchRuns(client, settings, written)
    runs.find(whole)
    runs.write(until(whole, 4))
    runs.write(whole)
    for name in ("hypervolume", "front_size", "best_fid", "network_gflops", "trials_per_hour", "failed"):
        history = client.get_metric_history(written.run_id, name)
        assert sorted({point.step for point in history}) == list(range(1, 11)), name


def test_the_point_that_saves_most_is_named_and_loses_its_name_with_its_place(settings: RunSettings) -> None:
    whole, written = made_up_search(12), WrittenSearch()
    client = make_client(settings.tracking.uri)
    runs = SearchRuns(client, settings, written)
    runs.find(whole)
    runs.write(whole)
    first, second = (int(trial) for trial in whole.front["trial"].iloc[:2])

    def finish(trial: int) -> dict[int, str]:
        facts = dict(whole.facts) | {"savings": {"trial": trial, "holds": True}}
        snapshot = Snapshot(whole.trials, whole.progress, whole.front, facts)
        runs.finish(snapshot, Path(settings.directory) / "none", True, "")
        return {int(run.data.tags["trial"]): run.data.tags.get("point", "") for run in children(settings, written)}

    named = finish(first)
    assert AT_FULL_QUALITY in named[first]
    assert "cheapest" in named[first].split(", ")
    named = finish(second)
    assert AT_FULL_QUALITY not in named[first]
    assert AT_FULL_QUALITY in named[second]
    assert {trial for trial, names in named.items() if names} <= set(whole.front["trial"])


def test_a_search_from_another_is_linked_to_it(settings: RunSettings, tmp_path: Path) -> None:
    whole = made_up_search(5)
    client = make_client(settings.tracking.uri)
    parent = settings.search_directory
    parent.mkdir(parents=True)
    save_settings(settings, parent / "settings.yaml")
    (parent / "search.json").write_text(json.dumps({"search_id": "the-parent"}))
    mirror = SearchMirror(settings, parent)
    facts = dict(whole.facts) | {"search_id": "the-parent"}
    assert mirror.close(Snapshot(whole.trials, whole.progress, whole.front, facts), parent, True) == ""
    facts = dict(whole.facts) | {"parent_searches": [str(parent), str(tmp_path / "gone")]}
    child, written = Snapshot(whole.trials, whole.progress, whole.front, facts), WrittenSearch()
    runs = SearchRuns(client, settings, written)
    runs.find(child)
    runs.write(child)
    runs.finish(child, tmp_path / "none", True, "Found something.")
    tags = client.get_run(written.run_id).data.tags
    assert tags["parent_search_ids"] == "the-parent"
    assert tags["parent_run_ids"] == mirror.written.run_id
    assert f"/runs/{mirror.written.run_id}), search the-parent." in tags["mlflow.note.content"]
    assert tags["mlflow.note.content"].startswith("Found something.\n")


def test_a_note_is_never_longer_than_mlflow_keeps() -> None:
    assert len(run_note(made_up_search(3000), "x" * 9000)) < 8000


def test_a_note_says_which_points_are_within_noise_of_a_cheaper_one() -> None:
    whole = made_up_search(30)
    front = whole.front.assign(within_noise=-1, label="")
    front.loc[front.index[-1], ["within_noise", "label"]] = 3, "best"
    *others, last = run_note(Snapshot(whole.trials, whole.progress, front, whole.facts)).splitlines()
    assert last.endswith("| best; within noise of trial 3 |")
    assert not [line for line in others if "noise" in line]


def test_the_widths_shown_are_one_a_stage() -> None:
    assert shown_steps([0.25, 0.25, 0.5, 0.5, 1.0, 1.0], 3) == [0.25, 0.5, 1.0]
    assert shown_steps(list(range(100)), 4) == [12, 37, 62, 87]
    assert shown_steps([0.5, 1.0], 2) == [0.5, 1.0]


def test_a_trial_shows_the_marks_of_its_steps(settings: RunSettings) -> None:
    made = {"plan": "1x1.00u 1x1.00 2x1.00ru 1x0.62 1xskip", "widths": [1.0, 1.0, 1.0, 1.0, 0.625, 0.0]}
    six = settings.model_copy(update={"sampler": settings.sampler.model_copy(update={"steps": 6})})
    listed = six.space.model_copy(update={"encoding": "steps", "variants": ("0.625", "1.0", "1.0u", "1.0ru")})
    params = plan_params(pd.Series(made), six.model_copy(update={"space": listed}))
    assert params == {
        **{"steps": 5, "reusing_steps": 2, "unguided_steps": 3},
        **{"w00": "1u", "w01": "1", "w02": "1ru", "w03": "1ru", "w04": "0.625", "w05": "0"},
    }
    scaled = made | {"plan": "1x1.00u 2x1.00g3 1x1.00rg1.5 1x0.62 1xskip"}
    scales = listed.model_copy(update={"variants": ("0.625", "1.0", "1.0u", "1.0g3", "1.0g1.5", "1.0rg1.5")})
    params = plan_params(pd.Series(scaled), six.model_copy(update={"space": scales}))
    assert [params[name] for name in ("own_scale_steps", "unguided_steps", "w01", "w03")] == [3, 1, "1g3", "1rg1.5"]
    plain = plan_params(pd.Series({"plan": "6x0.50", "widths": [0.5] * 6}), six)
    assert plain.pop("steps") == 6
    assert set(plain.values()) == {"0.5"}
    assert set(plain) == {f"w{i:02d}" for i in range(len(plain))}


def test_confirmed_points_bear_their_scores_on_held_out_noise_and_are_written_once(settings: RunSettings) -> None:
    whole, written = made_up_search(10), WrittenSearch()
    scores = {"fid_confirmed": 2.5, "fid_low": 2.0, "fid_high": 3.0, "kid": -0.001, "precision": 0.5, "recall": 0.25}
    unknown = {"kid_low": float("nan"), "kid_high": float("nan")}
    front = whole.front.assign(**scores, **unknown)
    front.loc[front.index[1:], "fid_confirmed"] = float("nan")
    confirmed = Snapshot(whole.trials, whole.progress, front, whole.facts)
    client = Counting(make_client(settings.tracking.uri))
    runs = SearchRuns(client, settings, written)  # type: ignore[arg-type]
    runs.find(confirmed)
    runs.write(confirmed)
    artifacts = Path(settings.directory) / "none"
    runs.finish(confirmed, artifacts, True, "")
    for run in children(settings, written):
        own = {name: value for name, value in run.data.metrics.items() if name in scores.keys() | unknown.keys()}
        assert own == (scores if int(run.data.tags["trial"]) == front["trial"].iloc[0] else {})
    calls = dict(client.calls)
    runs.finish(confirmed, artifacts, True, "")
    assert client.calls["log_batch"] == calls["log_batch"] + 1  # the note alone


def test_runs_of_a_search_in_a_larger_space_stay(settings: RunSettings) -> None:
    whole, written = made_up_search(12), WrittenSearch()
    runs = SearchRuns(make_client(settings.tracking.uri), settings, written)
    runs.find(whole)
    runs.write(until(whole, 8))
    before = dict(written.children)
    # The same plans have other genomes in the larger space, and the first driver was killed before its note.
    trials, facts = whole.trials.assign(genome="z" + whole.trials["genome"]), dict(whole.facts)
    larger = Snapshot(trials, whole.progress, whole.front, facts | {"earlier_spaces": [{"below": 8}]})
    again = WrittenSearch()
    runs = SearchRuns(make_client(settings.tracking.uri), settings, again)
    runs.write(larger)
    runs.finish(larger, Path(settings.directory) / "none", True, "")
    assert {trial: again.children[trial] for trial in before} == before
    assert len(again.children) == 12
    tags = make_client(settings.tracking.uri).get_run(again.run_id).data.tags
    assert tags["extended_after_trials"] == "8"
