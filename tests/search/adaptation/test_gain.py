"""What a second stage cost and gained: its table, its MLflow run, and what `list` and `doctor` say of its supernet."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepfront.search.adaptation.adapt import adapted_settings, run_adaptation, settings_of_supernet
from stepfront.search.adaptation.gain import gflops_of_group
from stepfront.search.checks.doctor import check_environment
from stepfront.search.cli.main import app
from stepfront.search.config import RunSettings
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.records.run_list import list_runs
from stepfront.search.tracking.experiments import training_experiment
from stepfront.tables.adaptation import adaptation_note
from stepfront.tables.parquet import read_table
from stepfront.tables.schema import ADAPTATION, TRAINING
from stepfront.trainers.adaptation.second_stage import SecondStage
from stepfront.trainers.data import load_data
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.networks.card import read_card
from tests.search.conftest import own_store

TWO = ["adapt.groups.count=2", "adapt.groups.by=times", "adapt.steps=3", "training.samples_every=0"]


def adapt(place: Path, *overrides: str) -> RunSettings:
    settings = adapted_settings(settings_of_supernet(str(place / "tiny"), [*TWO, *overrides]))
    run_adaptation(settings, str(place / "tiny"), False, lambda state: None, lambda text: None)
    return settings


def test_the_table_has_the_card_s_losses_and_what_training_took(fresh: Path) -> None:
    settings = adapt(fresh)
    directory = settings.supernet_directory
    table, card = read_table(directory / ADAPTATION), read_card(directory)
    facts = card.made_with
    assert list(zip(table["group"], table["width"], strict=True)) == [(g, w) for g in (1, 2) for w in (0.25, 0.5, 1.0)]
    for row in table.to_dict("records"):
        before, after = (facts[name][row["group"] - 1] for name in ("losses_before", "losses_after"))
        assert (row["loss_before"], row["loss_after"]) == (before[str(row["width"])], after[str(row["width"])])
        assert (row["first_time"], row["last_time"]) == ((0, 499), (500, 999))[row["group"] - 1]
    assert set(table["images"]) == {3 * 16}
    # A step is the widest, the narrowest and the one in between, forward and backward, two FLOPs per MAC.
    macs = sum(count_width(card.network, 1, 8, width).macs for width in card.network.widths)
    assert table["gflops"].tolist() == pytest.approx([6e-9 * macs * 16 * 3] * 6)
    speeds = [read_table(directory / "groups" / f"group-{n}" / TRAINING)["images_per_second"].iloc[0] for n in (0, 1)]
    assert table["seconds"].tolist() == pytest.approx([3 * 16 * 3 / speed for speed in speeds for _ in range(3)])
    assert table["factor"].isna().all()

    merged = adapt(fresh, "adapt.merge=true").supernet_directory
    factors = read_card(merged).made_with["merge_factors"]
    assert read_table(merged / ADAPTATION)["factor"].tolist() == [factor for factor in factors for _ in range(3)]
    assert read_table(merged / ADAPTATION)["seconds"].tolist() == table["seconds"].tolist()  # its groups' own


def test_a_teacher_from_another_folder_is_counted_and_the_widest_as_teacher_has_run_already(fresh: Path) -> None:
    base = fresh / "tiny" / "supernet"
    count = partial(count_width, read_card(base).network, 1, 8)
    trained = 6e-9 * sum(count(width).macs for width in (0.25, 0.5, 1.0)) * 16 * 3
    for teacher, calls in (("training.teacher=null", 0), (f"training.teacher={base}", 3)):
        given = settings_of_supernet(str(base), [*TWO, "training.distill=0.5", teacher])
        data = load_data(given.data)
        stage = SecondStage.checked(given, given.adapt, data, base, fresh / "groups")
        assert gflops_of_group(stage) == pytest.approx(trained + 2e-9 * calls * count(1.0).macs * 16 * 3)


def test_one_mlflow_run_has_losses_costs_and_a_description(fresh: Path, empty_store: Path) -> None:
    uri = own_store(fresh, empty_store)
    settings = adapt(fresh, uri)
    client = make_client(settings.tracking.uri)
    experiment = client.get_experiment_by_name(training_experiment(settings))
    assert experiment is not None
    adapt(fresh, uri)  # nothing is left to do
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == ["tiny-groups-2", "tiny-groups-2.group-0", "tiny-groups-2.group-1"]
    run, table = found["tiny-groups-2"], read_table(settings.supernet_directory / ADAPTATION)
    assert run.info.status == "FINISHED"
    for name in ("loss_before", "loss_after"):
        history = client.get_metric_history(run.info.run_id, f"{name}/0.25")
        narrowest = table[table["width"] == 0.25]
        assert [(point.step, point.value) for point in history] == list(
            zip(narrowest["group"], narrowest[name], strict=True)
        )
    assert run.data.metrics["images"] == 2 * 3 * 16
    assert run.data.params["adapt.groups.count"] == "2"
    assert run.data.tags["mlflow.note.content"] == adaptation_note(table)
    assert run.data.tags["supernet_digest"] == read_card(settings.supernet_directory).digest
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert kept == {"supernet.json", "settings.yaml", ADAPTATION}


def test_list_and_doctor_know_it_and_notice_a_missing_or_damaged_group(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = adapt(fresh)
    states = {run.name: run.state for run in list_runs(fresh)}
    assert states == {"tiny": "trained", "tiny-groups-2": "adapted"}
    for check in ("_ray", "_storage", "_disk"):
        monkeypatch.setattr(f"stepfront.search.checks.doctor.{check}", lambda settings: "")

    def supernet() -> tuple[bool, str]:
        (finding,) = [finding for finding in check_environment(settings) if finding.what == "supernet"]
        return finding.usable, finding.detail

    expected = f"widths 0.25, 0.5, 1.0, 2 groups of times, digest {_digest(settings)}"
    assert supernet() == (True, expected)
    for place in (settings.run_directory, settings.supernet_directory):  # the verb finds it without a search
        said = CliRunner().invoke(app, ["doctor", str(place), "--json"])
        assert said.exit_code == 0
        assert {one["what"]: one["detail"] for one in json.loads(said.stdout)}["supernet"] == expected
    weights = settings.supernet_directory / "groups" / "group-1" / "supernet.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert supernet()[1].startswith("groups/group-1/supernet.safetensors is damaged; restore it from a copy of ")
    weights.unlink()
    usable, line = supernet()
    assert not usable
    assert line.startswith("groups/group-1/supernet.safetensors is missing; restore it from a copy of ")
    assert line.endswith("or run `stepfront adapt` again with --fresh")


def _digest(settings: RunSettings) -> str:
    return read_card(settings.supernet_directory).digest[:12]
