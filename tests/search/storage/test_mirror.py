"""A folder and a URI in line: what is there is complete, the newest wins, and nothing is lost."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.file_store import FileStore
from stepfront.files import write_text
from stepfront.search.storage import mirror as mirrors
from stepfront.search.storage.lease import LEASE
from stepfront.search.storage.mirror import MANIFEST, STATE, Mirror
from stepfront.search.storage.run_location import copy_folder, open_for_reading, open_for_writing
from tests.search.storage.conftest import Machine, content


@contextlib.contextmanager
def working(uri: str) -> Iterator[Path]:
    """Yield the folder of a working copy."""
    with open_for_writing(uri) as location:
        yield location.local


def test_only_what_changed_is_uploaded(uri: str, machine: Machine) -> None:
    mirror = Mirror(uri, copy_folder(uri, "work"))
    write_text(mirror.folder / "a", "1")
    write_text(mirror.folder / "b", "1")
    assert mirror.upload() == 2
    assert mirror.upload() == 0
    write_text(mirror.folder / "b", "2")
    assert mirror.upload() == 1
    assert content(uri) == {"a": b"1", "b": b"2"}


def test_a_database_in_use_arrives_complete(uri: str, machine: Machine) -> None:
    mirror = Mirror(uri, copy_folder(uri, "work"))
    (mirror.folder / "search").mkdir()
    with closing(sqlite3.connect(mirror.folder / "search" / "study.db")) as study:
        study.execute("PRAGMA journal_mode=WAL")
        study.execute("CREATE TABLE t (n INTEGER)")
        for n in range(100):
            study.execute("INSERT INTO t VALUES (?)", (n,))
        study.commit()
        assert (mirror.folder / "search" / "study.db-wal").stat().st_size > 0
        study.execute("INSERT INTO t VALUES (100)")  # not committed
        mirror.upload()
        study.rollback()
        study.execute("INSERT INTO t VALUES (200)")
        study.commit()  # into the log alone: the database's own file is as it was
        assert mirror.upload() == 1
    assert set(content(uri)) == {"search/study.db"}
    machine("b")
    with closing(sqlite3.connect(open_for_reading(uri).local / "search" / "study.db")) as there:
        assert there.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert [n for (n,) in there.execute("SELECT n FROM t ORDER BY n")] == [*range(100), 200]


def test_the_study_is_uploaded_first_and_the_card_last(machine: Machine, tmp_path: Path) -> None:
    written: list[str] = []

    class Recording(FileStore):
        def upload(self, path: Path, name: str) -> None:
            written.append(name)
            super().upload(path, name)

    uri = f"file://{tmp_path}/runs/digits"
    mirror = Mirror(uri, copy_folder(uri, "work"))
    mirror._store = Recording(uri)
    names = ["supernet/supernet.json", "supernet/weights.safetensors", "search/front.parquet", "search/study.journal"]
    for name in names:
        write_text(mirror.folder / name, "1")
    mirror.upload()
    assert written[0] == "search/study.journal"
    assert written[-1] == "supernet/supernet.json"
    assert sorted(written) == sorted(names)


def test_what_changed_elsewhere_wins_and_what_is_here_alone_is_moved_aside(uri: str, machine: Machine) -> None:
    with working(uri) as folder:
        write_text(folder / "trials", "1")
        write_text(folder / "images", "1")
    machine("b")
    with working(uri) as folder:
        write_text(folder / "trials", "1 2 3")
    machine("a")
    here = copy_folder(uri, "work")
    write_text(here / "trials", "1 2")  # of a driver that was killed before it brought them there
    with working(uri) as folder:
        assert (folder / "trials").read_text() == "1 2 3"
        assert (folder / "images").read_text() == "1"
    assert (here.with_name("digits.aside-1") / "trials").read_text() == "1 2"
    assert content(uri)["trials"] == b"1 2 3"


def test_the_next_command_uploads_what_a_killed_driver_left(uri: str, machine: Machine) -> None:
    with working(uri) as folder:
        write_text(folder / "trials", "1")
    write_text(copy_folder(uri, "work") / "trials", "1 2")
    with working(uri) as folder:
        assert (folder / "trials").read_text() == "1 2"
    assert content(uri)["trials"] == b"1 2"


def test_a_run_that_was_deleted_at_its_uri_does_not_come_back(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"file://{tmp_path}/runs/digits"
    with working(uri) as folder:
        write_text(folder / "search" / "trials", "1")
    write_text(folder / "search" / "trials", "1 2")  # of a driver that was killed before it brought them there
    shutil.rmtree(tmp_path / "runs" / "digits")
    with working(uri) as folder:
        assert not (folder / "search" / "trials").exists()
        write_text(folder / "search" / "settings", "new")
    assert content(uri) == {"search/settings": b"new"}
    aside = folder.with_name("digits.aside-1")
    assert (aside / "search" / "trials").read_text() == "1 2"
    assert f"{uri} was deleted or emptied; this machine's copy is moved to {aside}" in caplog.text


def test_a_folder_that_was_put_there_by_hand_can_be_worked_in(machine: Machine, tmp_path: Path) -> None:
    by_hand = tmp_path / "bucket" / "runs" / "digits"
    write_text(by_hand / "supernet" / "supernet.json", "{}")
    with working(f"file://{by_hand}") as folder:
        assert (folder / "supernet" / "supernet.json").exists()
    assert (by_hand / MANIFEST).exists()
    with pytest.raises(InputError, match="there are no files at"):
        open_for_reading(f"file://{tmp_path}/bucket/runs/other")


def test_an_error_or_ctrl_c_uploads_what_is_there_and_passes(uri: str, machine: Machine) -> None:
    def interrupted() -> None:
        with working(uri) as folder:
            write_text(folder / "trials", "1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert content(uri) == {"trials": b"1"}
    assert FileStore(uri).read_json(LEASE) is None


def test_changes_are_uploaded_while_the_verb_still_runs(
    uri: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "UPLOAD_SECONDS", 0.05)
    with working(uri) as folder:
        write_text(folder / "trials", "1")
        until = time.monotonic() + 60
        while content(uri) != {"trials": b"1"} and time.monotonic() < until:
            time.sleep(0.05)
        assert content(uri) == {"trials": b"1"}


def test_a_store_that_goes_away_costs_nothing(machine: Machine, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    uri = f"file://{bucket}/digits"

    def losing_it() -> None:
        with working(uri) as folder:
            write_text(folder / "trials", "1")
            shutil.rmtree(bucket)
            bucket.write_text("no folder any more")

    with pytest.raises(InputError, match="what is not uploaded yet is kept in") as caught:
        losing_it()
    assert "\n" not in str(caught.value)
    bucket.unlink()
    with working(uri):
        pass
    assert content(uri) == {"trials": b"1"}


def test_an_upload_that_failed_halfway_continues(machine: Machine, tmp_path: Path) -> None:
    class Failing(FileStore):
        refused = "b"

        def upload(self, path: Path, name: str) -> None:
            if name == self.refused:
                raise InputError("the store is away")
            super().upload(path, name)

    uri = f"file://{tmp_path}/runs/digits"
    with working(uri) as folder:
        write_text(folder / "a", "1")
        write_text(folder / "b", "1")
    machine("b")
    second = Mirror(uri, copy_folder(uri, "work"))
    second._store = Failing(uri)
    second.download()
    write_text(second.folder / "a", "2")
    write_text(second.folder / "b", "2")
    with pytest.raises(InputError, match="the store is away"):
        second.upload()
    assert content(uri) == {"a": b"2", "b": b"1"}
    Failing.refused = ""
    assert second.upload() == 1
    assert content(uri) == {"a": b"2", "b": b"2"}
    machine("c")
    assert (open_for_reading(uri).local / "a").read_text() == "2"


def test_a_driver_killed_between_its_manifest_and_its_own_note_finds_its_work_again(
    machine: Machine, tmp_path: Path
) -> None:
    uri = f"file://{tmp_path}/runs/digits"
    first = Mirror(uri, copy_folder(uri, "work"))
    write_text(first.folder / "trials", "1")
    first.upload()
    before = (first.folder / STATE).read_text()
    write_text(first.folder / "trials", "1 2")
    first.upload()
    (first.folder / STATE).write_text(before)
    write_text(first.folder / "trials", "1 2 3")
    with working(uri) as folder:
        assert (folder / "trials").read_text() == "1 2 3"
    assert content(uri) == {"trials": b"1 2 3"}
    assert not list(first.folder.parent.glob("*.aside-*"))


def test_a_damaged_database_is_uploaded_as_it_is(machine: Machine, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/runs/digits"
    mirror = Mirror(uri, copy_folder(uri, "work"))
    write_text(mirror.folder / "study.db", "no database" * 100)
    mirror.upload()
    assert content(uri) == {"study.db": b"no database" * 100}
