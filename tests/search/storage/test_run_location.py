"""Runs given as folders or URIs: read and worked in as local copies, and called by the name that the user gave."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from stepfront.addresses import is_uri, joined
from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.search.cli.main import app, main
from stepfront.search.driver.search import run_search
from stepfront.search.storage.run_location import (
    RunLocation,
    copy_folder,
    local_settings,
    named_by_uri,
    open_for_reading,
    open_for_writing,
)
from stepfront.tables.schema import FRONT, TRIALS
from tests.search.conftest import Silent, tiny_settings
from tests.search.storage.conftest import Machine, content


def test_what_is_written_here_is_there_and_on_the_next_machine(uri: str, machine: Machine) -> None:
    with open_for_writing(uri) as location:
        folder = location.local
        write_text(folder / "search" / "settings.yaml", "name: digits\n")
        write_text(folder / "supernet" / "supernet.json", "{}\n")
        (folder / "search" / ".half.part").write_text("half")
        (folder / "search" / "lock").write_text("1")
    assert content(uri) == {"search/settings.yaml": b"name: digits\n", "supernet/supernet.json": b"{}\n"}
    machine("b")
    with open_for_writing(joined(uri, "search")) as location:
        search = location.local
        assert (search / "settings.yaml").read_text() == "name: digits\n"
        assert (search.parent / "supernet" / "supernet.json").read_text() == "{}\n"
        (search / "settings.yaml").unlink()
    assert set(content(uri)) == {"supernet/supernet.json"}  # what is deleted here is deleted there
    assert open_for_reading(uri).local.name == "digits"


def test_messages_name_the_uri_without_its_password_and_not_the_copy(
    uri: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_for_writing(uri) as location:
        write_text(location.local / "trials", "1")
        assert str(location) == uri
        assert location.uri == uri
    assert str(open_for_reading(uri)) == uri
    assert str(RunLocation(tmp_path, "s3://me:hunter2@bucket/runs")) == "s3://me:***@bucket/runs"
    with pytest.raises(InputError, match="holds a password"):
        open_for_reading("s3://me:hunter2@bucket/runs")


def test_errors_of_the_command_name_the_uri_and_not_its_copy(
    uri: str, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_for_writing(uri) as location:
        write_text(location.local / "search" / "settings.yaml", "name: digits\n")
    for verb in ("front", "confirm", "claim", "export"):
        more = ["--out", str(location.local.parent / "out")] if verb == "export" else []
        monkeypatch.setattr(sys, "argv", ["stepfront", verb, uri, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert uri in said
        assert str(location.local.parents[1]) not in said
    copy = f"{location.local}/search/front.parquet"
    assert named_by_uri(f"{copy} is damaged.") == f"{joined(uri, 'search/front.parquet')} is damaged."
    assert named_by_uri(f"{location.local.parent}/other/a and {location.local.name}") == (
        f"{location.local.parent}/other/a and {location.local.name}"
    )


def test_a_plain_folder_is_its_own_copy(tmp_path: Path) -> None:
    assert open_for_reading(str(tmp_path)) == RunLocation(tmp_path)
    with open_for_writing(str(tmp_path)) as location:
        assert location == RunLocation(tmp_path)
        assert str(location) == str(tmp_path)


def test_a_run_can_be_read_while_a_driver_is_at_work(uri: str, machine: Machine) -> None:
    with open_for_writing(uri) as location:
        folder = location.local
        write_text(folder / "trials", "1")
    with open_for_writing(uri) as location:
        folder = location.local
        write_text(folder / "trials", "not there yet")
        seen = open_for_reading(uri).local
        assert seen != folder
        assert (seen / "trials").read_text() == "1"
        write_text(seen / "report.html", "drawn by a reader")
    assert (open_for_reading(uri).local / "trials").read_text() == "not there yet"
    assert (seen / "report.html").exists()
    assert content(uri) == {"trials": b"not there yet"}


def test_a_supernet_at_a_uri_is_an_input_of_a_search_and_the_result_of_a_training(
    machine: Machine, tmp_path: Path
) -> None:
    place = f"file://{tmp_path}/bucket/nets/supernet"
    settings = tiny_settings(tmp_path, f"supernet={place}")
    with local_settings(settings) as (here, location):
        assert here == settings  # nothing is downloaded for a verb that reads tables
        assert location == RunLocation(settings.run_directory)
        assert here.supernet_place == place
        with pytest.raises(InputError, match="is a URI where a local folder is needed"):
            _ = here.supernet_directory
    with local_settings(settings, trains=True) as (here, _):
        write_text(here.supernet_directory / "supernet.json", "{}")
    assert (tmp_path / "bucket" / "nets" / "supernet" / "supernet.json").exists()


@pytest.mark.parametrize("trains", [False, True])
def test_a_runs_own_supernet_may_be_named_by_its_uri(trains: bool, machine: Machine, tmp_path: Path) -> None:
    bucket = f"file://{tmp_path}/bucket"
    settings = tiny_settings(tmp_path, f"directory={bucket}", f"supernet={bucket}/tiny/supernet")
    with local_settings(settings, trains) as (here, location):
        assert here.supernet_directory == location.local / "supernet"


def test_uris_are_told_from_folders_and_each_run_has_a_copy_of_its_own() -> None:
    for uri in ("s3://bucket/runs/digits", "file:///srv/runs", "gs://b/r?x=1"):
        assert is_uri(uri)
    for path in ("runs/digits", "/srv/runs", "digits", "./s3:"):
        assert not is_uri(path)
    assert joined("s3://b/runs/?endpoint_override=e", "digits") == "s3://b/runs/digits?endpoint_override=e"
    assert copy_folder("s3://b/runs/digits", "work").name == "digits"
    assert copy_folder("s3://b/runs/digits", "work") != copy_folder("s3://c/runs/digits", "work")
    assert copy_folder("s3://b/runs/a", "work").parent == copy_folder("s3://b/runs/b", "work").parent


def test_a_search_at_a_uri_continues_on_another_machine(trained: Path, machine: Machine, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    shutil.copytree(trained / "tiny" / "supernet", bucket / "nets" / "supernet")
    supernet = f"supernet=file://{bucket}/nets/supernet"
    settings = tiny_settings(tmp_path, "workers.count=1", f"directory=file://{bucket}", supernet)
    with local_settings(settings) as (here, location):
        assert str(location) == f"file://{bucket}/tiny"
        assert Path(here.directory).is_relative_to(tmp_path / "a")
        run_search(here, False, Silent(), lambda text: None)
    assert len(pd.read_parquet(bucket / "tiny" / "search" / TRIALS)) == 9
    saved = yaml.safe_load((bucket / "tiny" / "search" / "settings.yaml").read_text())
    assert saved["supernet"] == f"file://{bucket}/nets/supernet"  # any machine finds it there
    machine("b")
    shutil.rmtree(tmp_path / "a")  # another machine has none of it
    runner = CliRunner()
    done = runner.invoke(app, ["extend", f"file://{bucket}/tiny", "--trials", "3"])
    assert done.exit_code == 0, done.output
    trials = pd.read_parquet(bucket / "tiny" / "search" / TRIALS)
    assert trials["trial"].tolist() == list(range(12))
    assert (bucket / "tiny" / "search" / "report.html").exists()
    local = tmp_path / "local"
    shutil.copytree(trained / "tiny" / "supernet", local / "tiny" / "supernet")
    never = tiny_settings(local, "workers.count=1", "budget.trials=12")
    straight = pd.read_parquet(run_search(never, False, Silent(), lambda text: None) / TRIALS)
    assert trials["genome"].tolist() == straight["genome"].tolist()
    assert trials["fid"].tolist() == straight["fid"].tolist()
    machine("c")
    shown = runner.invoke(app, ["front", f"file://{bucket}/tiny", "--export", str(tmp_path / "front.csv")])
    assert shown.exit_code == 0, shown.output
    assert len(pd.read_csv(tmp_path / "front.csv")) == len(pd.read_parquet(bucket / "tiny" / "search" / FRONT))
    checked = runner.invoke(app, ["doctor", f"file://{bucket}/tiny"])
    assert checked.exit_code == 0, checked.output
    # Who reads tables needs no supernet.
    machine("d")
    shutil.rmtree(bucket / "nets")
    shown = runner.invoke(app, ["front", f"file://{bucket}/tiny"])
    assert shown.exit_code == 0, shown.output
    missing = runner.invoke(app, ["confirm", f"file://{bucket}/tiny"])
    assert str(missing.exception) == (
        f"there are no files at file://{bucket}/nets; give the URI of a run, such as s3://bucket/runs/digits"
    )
