"""Runs kept at a URI: what is there is whole, the newest wins, nothing is lost, and no two drivers meet.

The file systems are real ones: pyarrow's own behind file://, and fsspec's in memory; machines are folders of copies.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pandas as pd
import pytest
from pyarrow.fs import S3FileSystem
from typer.testing import CliRunner

from stepfront.addresses import is_uri, joined
from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.files import write_text
from stepfront.search.cli.main import app
from stepfront.search.cli.uri_arguments import uri_of
from stepfront.search.driver.search import run_search
from stepfront.search.driver.search_report import SearchReport
from stepfront.search.storage import lease
from stepfront.search.storage import mirror as copies
from stepfront.search.storage.lease import LEASE
from stepfront.search.storage.lock import InUseError
from stepfront.search.storage.mirror import MANIFEST, Copy
from stepfront.search.storage.working_copy import copy_folder, fetched, known_as, mirrored, settings_at_home
from stepfront.tables.schema import FRONT, TRIALS
from tests.search.conftest import tiny_settings

Machine = Callable[[str], None]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that speaks S3: moto's, where its program is installed."""
    program = shutil.which("moto_server")
    if program is None:
        pytest.skip("no moto_server is installed (pip install 'moto[server,s3]', in an environment of its own)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(tmp_path_factory.mktemp("s3") / "log", "w") as log:
        server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        for _ in range(120):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.5)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(params=["file", "memory", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh place for a run: behind pyarrow's local file system, one of fsspec's, and S3's protocol."""
    fresh = uuid.uuid4().hex
    if request.param != "s3":
        return f"file://{tmp_path}/bucket/runs/digits" if request.param == "file" else f"memory://{fresh}/digits"
    address = request.getfixturevalue("s3_server")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    where = {"endpoint_override": address, "scheme": "http", "region": "us-east-1"}
    S3FileSystem(**where, allow_bucket_creation=True).create_dir(fresh)
    # Small files in one request each: moto now and then fails to complete an upload in parts.
    return f"s3://{fresh}/runs/digits?{urlencode(where)}&allow_delayed_open=true"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Goes to the machine of a name: each has local copies of its own."""
    monkeypatch.setattr("stepfront.search.storage.lease.SETTLE_SECONDS", 0.0)

    def go(name: str) -> None:
        monkeypatch.setenv("STEPFRONT_CACHE", str(tmp_path / name))

    go("a")
    return go


def content(uri: str) -> dict[str, bytes]:
    """The run's files at a URI, without what the copies say to each other."""
    store = FileStore(uri)
    found = {}
    for name in store.names():
        if not name.startswith("."):
            with store._files.open_input_stream(store._at(name)) as file:
                found[name] = file.read()
    return found


def test_what_is_written_here_is_there_and_on_the_next_machine(uri: str, machine: Machine) -> None:
    with mirrored(uri) as folder:
        write_text(folder / "search" / "settings.yaml", "name: digits\n")
        write_text(folder / "supernet" / "supernet.json", "{}\n")
        (folder / "search" / ".half.part").write_text("half")
        (folder / "search" / "lock").write_text("1")
    assert content(uri) == {"search/settings.yaml": b"name: digits\n", "supernet/supernet.json": b"{}\n"}
    machine("b")
    with mirrored(joined(uri, "search")) as search:
        assert (search / "settings.yaml").read_text() == "name: digits\n"
        assert (search.parent / "supernet" / "supernet.json").read_text() == "{}\n"
        (search / "settings.yaml").unlink()
    assert set(content(uri)) == {"supernet/supernet.json"}  # what is deleted here is deleted there
    assert fetched(uri).name == "digits"


def test_only_what_changed_is_written(uri: str, machine: Machine) -> None:
    copy = Copy(uri, copy_folder(uri, "work"))
    write_text(copy.folder / "a", "1")
    write_text(copy.folder / "b", "1")
    assert copy.push() == 2
    assert copy.push() == 0
    write_text(copy.folder / "b", "2")
    assert copy.push() == 1
    assert content(uri) == {"a": b"1", "b": b"2"}


def test_a_database_in_use_arrives_whole(uri: str, machine: Machine) -> None:
    copy = Copy(uri, copy_folder(uri, "work"))
    (copy.folder / "search").mkdir()
    with closing(sqlite3.connect(copy.folder / "search" / "study.db")) as study:
        study.execute("PRAGMA journal_mode=WAL")
        study.execute("CREATE TABLE t (n INTEGER)")
        for n in range(100):
            study.execute("INSERT INTO t VALUES (?)", (n,))
        study.commit()
        assert (copy.folder / "search" / "study.db-wal").stat().st_size > 0
        study.execute("INSERT INTO t VALUES (100)")  # not committed
        copy.push()
        study.rollback()
        study.execute("INSERT INTO t VALUES (200)")
        study.commit()  # into the log alone: the database's own file is as it was
        assert copy.push() == 1
    assert set(content(uri)) == {"search/study.db"}
    machine("b")
    with closing(sqlite3.connect(fetched(uri) / "search" / "study.db")) as there:
        assert there.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert [n for (n,) in there.execute("SELECT n FROM t ORDER BY n")] == [*range(100), 200]


def test_the_study_is_brought_first_and_the_card_last(machine: Machine, tmp_path: Path) -> None:
    written: list[str] = []

    class Told(FileStore):
        def upload(self, path: Path, name: str) -> None:
            written.append(name)
            super().upload(path, name)

    uri = f"file://{tmp_path}/runs/digits"
    copy = Copy(uri, copy_folder(uri, "work"))
    copy._store = Told(uri)
    names = ["supernet/supernet.json", "supernet/weights.safetensors", "search/front.parquet", "search/study.journal"]
    for name in names:
        write_text(copy.folder / name, "1")
    copy.push()
    assert written[0] == "search/study.journal"
    assert written[-1] == "supernet/supernet.json"
    assert sorted(written) == sorted(names)


def test_what_went_on_elsewhere_wins_and_what_is_here_alone_is_put_aside(uri: str, machine: Machine) -> None:
    with mirrored(uri) as folder:
        write_text(folder / "trials", "1")
        write_text(folder / "images", "1")
    machine("b")
    with mirrored(uri) as folder:
        write_text(folder / "trials", "1 2 3")
    machine("a")
    here = copy_folder(uri, "work")
    write_text(here / "trials", "1 2")  # of a driver that was killed before it brought them there
    with mirrored(uri) as folder:
        assert (folder / "trials").read_text() == "1 2 3"
        assert (folder / "images").read_text() == "1"
    assert (here.with_name("digits.aside-1") / "trials").read_text() == "1 2"
    assert content(uri)["trials"] == b"1 2 3"


def test_a_killed_driver_brings_the_rest_when_it_is_called_again(uri: str, machine: Machine) -> None:
    with mirrored(uri) as folder:
        write_text(folder / "trials", "1")
    write_text(copy_folder(uri, "work") / "trials", "1 2")
    with mirrored(uri) as folder:
        assert (folder / "trials").read_text() == "1 2"
    assert content(uri)["trials"] == b"1 2"


def test_a_folder_that_was_put_there_by_hand_can_be_worked_in(machine: Machine, tmp_path: Path) -> None:
    by_hand = tmp_path / "bucket" / "runs" / "digits"
    write_text(by_hand / "supernet" / "supernet.json", "{}")
    with mirrored(f"file://{by_hand}") as folder:
        assert (folder / "supernet" / "supernet.json").exists()
    assert (by_hand / MANIFEST).exists()
    with pytest.raises(InputError, match="nothing lies at"):
        fetched(f"file://{tmp_path}/bucket/runs/other")


def test_an_error_or_ctrl_c_brings_what_is_there_and_goes_on(uri: str, machine: Machine) -> None:
    def interrupted() -> None:
        with mirrored(uri) as folder:
            write_text(folder / "trials", "1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert content(uri) == {"trials": b"1"}
    assert FileStore(uri).read_json(LEASE) is None


def test_hints_name_the_uri_and_not_its_copy(uri: str, machine: Machine, tmp_path: Path) -> None:
    with mirrored(uri) as folder:
        assert known_as(folder) == uri
        assert known_as(tmp_path) == str(tmp_path)


def test_changes_are_brought_while_the_verb_still_runs(
    uri: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "EVERY", 0.05)
    with mirrored(uri) as folder:
        write_text(folder / "trials", "1")
        until = time.monotonic() + 20
        while content(uri) != {"trials": b"1"} and time.monotonic() < until:
            time.sleep(0.05)
        assert content(uri) == {"trials": b"1"}


def test_a_second_driver_is_refused_and_told_who_is_at_work(uri: str, machine: Machine) -> None:
    with mirrored(uri) as folder:
        write_text(folder / "trials", "1")
        with pytest.raises(InputError, match="in use by another stepfront"), mirrored(uri):
            pass  # on this machine by the copy's lock
        machine("b")
        with (
            pytest.raises(InputError, match=f"process {os.getpid()}, since .* runs out within 5 minutes"),
            mirrored(uri),
        ):
            pass  # on another by the lease
    machine("b")
    with mirrored(uri) as folder:
        assert (folder / "trials").read_text() == "1"


def test_a_run_can_be_read_while_a_driver_is_at_work(uri: str, machine: Machine) -> None:
    with mirrored(uri) as folder:
        write_text(folder / "trials", "1")
    with mirrored(uri) as folder:
        write_text(folder / "trials", "not there yet")
        seen = fetched(uri)
        assert seen != folder
        assert (seen / "trials").read_text() == "1"
        write_text(seen / "report.html", "drawn by a reader")
    assert (fetched(uri) / "trials").read_text() == "not there yet"
    assert (seen / "report.html").exists()
    assert content(uri) == {"trials": b"not there yet"}


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_stops(
    uri: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Copy(uri, copy_folder(uri, "work"))
    monkeypatch.setattr(lease, "LEASE_SECONDS", -1.0)
    with first.held():
        write_text(first.folder / "trials", "first")
        monkeypatch.setattr(lease, "LEASE_SECONDS", 300.0)
        machine("b")
        with mirrored(uri) as folder:
            write_text(folder / "trials", "second")
            with pytest.raises(InUseError, match="was taken over by another stepfront"):
                first.push()
    assert content(uri) == {"trials": b"second"}


def test_a_dead_driver_of_the_same_copy_is_not_waited_for(uri: str, machine: Machine) -> None:
    dead = Copy(uri, copy_folder(uri, "work"))
    dead._write_state()
    dead._lease.acquire()  # killed: the lease stays
    with mirrored(uri) as folder:
        write_text(folder / "trials", "1")
    assert content(uri) == {"trials": b"1"}


def test_a_store_that_goes_away_costs_nothing(machine: Machine, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    uri = f"file://{bucket}/digits"

    def losing_it() -> None:
        with mirrored(uri) as folder:
            write_text(folder / "trials", "1")
            shutil.rmtree(bucket)
            bucket.write_text("no folder any more")

    with pytest.raises(InputError, match="what is not there yet lies in") as told:
        losing_it()
    assert "\n" not in str(told.value)
    bucket.unlink()
    with mirrored(uri):
        pass
    assert content(uri) == {"trials": b"1"}


def test_errors_are_one_line_without_secrets(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no file system is known for nope://; possible: file, s3"):
        FileStore("nope://bucket/runs")
    monkeypatch.setenv("KEY", "very-secret")
    with pytest.raises(InputError) as told:
        FileStore("nope://me:${KEY}@bucket/runs?secret_key=${KEY}")
    assert "very-secret" not in str(told.value)
    with pytest.raises(InputError, match=r"names \$\{MISSING\}"):
        FileStore("s3://me:${MISSING}@bucket/runs")
    with pytest.raises(InputError, match="holds a password"):
        tiny_settings(Path("x"), "directory=s3://me:very-secret@bucket/runs")


def test_uris_survive_being_typed_where_a_path_is_expected() -> None:
    for uri in ("s3://bucket/runs/digits", "file:///srv/runs", "gs://b/r?x=1"):
        assert is_uri(uri)
        assert uri_of(Path(uri)) == uri
    for path in ("runs/digits", "/srv/runs", "digits", "./s3:"):
        assert not is_uri(path)
        assert uri_of(Path(path)) is None
    assert joined("s3://b/runs/?endpoint_override=e", "digits") == "s3://b/runs/digits?endpoint_override=e"
    assert copy_folder("s3://b/runs/digits", "work").name == "digits"
    assert copy_folder("s3://b/runs/digits", "work") != copy_folder("s3://c/runs/digits", "work")
    assert copy_folder("s3://b/runs/a", "work").parent == copy_folder("s3://b/runs/b", "work").parent


class Silent:
    def update(self, report: SearchReport) -> None: ...


def test_a_search_at_a_uri_goes_on_on_another_machine(
    trained: Path, cluster: None, machine: Machine, tmp_path: Path
) -> None:
    bucket = tmp_path / "bucket"
    shutil.copytree(trained / "tiny" / "supernet", bucket / "nets" / "supernet")
    supernet = f"supernet=file://{bucket}/nets/supernet"
    settings = tiny_settings(tmp_path, "tracking.uri=null", "workers.count=1", f"directory=file://{bucket}", supernet)
    with settings_at_home(settings) as here:
        assert Path(here.directory).is_relative_to(tmp_path / "a")
        run_search(here, False, Silent(), lambda text: None)
    assert len(pd.read_parquet(bucket / "tiny" / "search" / TRIALS)) == 9
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
    never = tiny_settings(local, "tracking.uri=null", "workers.count=1", "budget.trials=12")
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
    assert str(missing.exception) == f"nothing lies at file://{bucket}/nets"
