"""Check storages that are locked, unreachable, full, truncated or shared; on a PostgreSQL server where there is one."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.search.study import optuna_storage as storage
from stepfront.search.study.budget import usage_of_study
from stepfront.search.study.ledger import Ledger
from stepfront.search.study.optuna_storage import cut_torn_line, finished_numbers, open_storage, study_name
from tests.search.servers import Postgres, running_postgres
from tests.search.study.test_ledger import make_ledger, outcomes, run


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("psycopg")
    try:
        with running_postgres() as server:
            yield server
    except LookupError as error:
        pytest.skip(str(error))


def ledger_in(server: Postgres, directory: Path) -> Ledger:
    directory.mkdir(exist_ok=True)
    storage = open_storage(server.url, directory)
    return make_ledger("memory", directory, storage=storage, name=study_name(server.url, directory))


def test_a_search_in_postgresql_is_the_same_and_can_be_interrupted(postgres: Postgres, tmp_path: Path) -> None:
    whole = run(make_ledger("memory", tmp_path))
    cut = run(ledger_in(postgres, tmp_path / "a"), most=11)
    cut.ask()
    again = ledger_in(postgres, tmp_path / "a")
    assert again.interrupted == 1
    assert outcomes(run(again)) == outcomes(whole)
    assert not ledger_in(postgres, tmp_path / "b").trials  # another search in the same database


def test_a_database_that_goes_away_for_a_while_is_waited_for(postgres: Postgres, tmp_path: Path) -> None:
    whole = run(make_ledger("memory", tmp_path))
    ledger = run(ledger_in(postgres, tmp_path / "away"), most=5)
    postgres.stop()
    begin = time.monotonic()
    back = threading.Timer(2, postgres.start)
    back.start()
    run(ledger)
    assert time.monotonic() - begin >= 1.9
    back.join()
    assert outcomes(ledger_in(postgres, tmp_path / "away")) == outcomes(whole)  # none lost, none twice


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_full_disk_stops_in_order_and_loses_nothing(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can't be mounted here (needs root)")
    try:
        ledger = run(make_ledger(kind, place), most=4)
        (place / "filler").write_bytes(b"x" * (os.statvfs(place).f_bavail * os.statvfs(place).f_frsize))
        with pytest.raises(InputError, match=r"can't be written: .*(full|No space).*stepfront resume"):
            run(ledger)
        before = [row for row in outcomes(ledger) if row[3] is not None]
        assert len(before) >= 4
        (place / "filler").unlink()
        again = make_ledger(kind, place)
        assert [row for row in outcomes(again) if row[3] is not None][: len(before)] == before
        assert outcomes(run(again)) == outcomes(run(make_ledger("memory", tmp_path)))
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # connections may still be open


def test_a_lock_that_a_killed_driver_left_beside_the_journal_is_no_hindrance(tmp_path: Path) -> None:
    run(make_ledger("journal", tmp_path), most=3)
    lock = tmp_path / "study.journal.lock"
    lock.symlink_to(tmp_path / "study.journal")
    begin = time.monotonic()
    assert make_ledger("journal", tmp_path).finished == 3
    assert time.monotonic() - begin < 20  # Optuna's own rule waits half a minute for a lock
    assert not lock.is_symlink()


def test_no_password_is_ever_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        open_storage("postgresql://me:secret@127.0.0.1:1/x", tmp_path)
    assert "secret" not in str(raised.value)
    assert "postgresql://me:***@127.0.0.1:1/x" in str(raised.value)


def test_a_database_file_that_was_cut_short_is_refused_in_one_line(tmp_path: Path) -> None:
    run(make_ledger("sqlite", tmp_path))
    path = tmp_path / "study.db"
    for beside in ("-wal", "-shm"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="can't be opened") as raised:
        open_storage(None, tmp_path)
    assert "\n" not in str(raised.value)
    assert storage.DATABASE_FILE in str(raised.value)


@pytest.mark.parametrize("verb", ["read_study", "study_attributes", "finished_numbers", "delete_study"])
def test_what_looks_into_a_database_closes_its_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    name = study_name(url, tmp_path / "search")
    run(make_ledger("memory", tmp_path, storage=open_storage(url, tmp_path), name=name), most=1)
    opened: list[object] = []
    closed: list[object] = []

    def opens(url: str | None, directory: Path) -> object:
        opened.append(open_storage(url, directory))
        return opened[-1]

    monkeypatch.setattr(storage, "open_storage", opens)
    monkeypatch.setattr(storage, "close_storage", closed.append)
    getattr(storage, verb)(url, tmp_path / "search")
    assert len(opened) == 1  # a server has few
    assert closed == opened


def test_a_search_in_a_database_keeps_its_study_when_it_is_moved(tmp_path: Path) -> None:
    (tmp_path / "run" / "search").mkdir(parents=True)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    name = study_name(url, tmp_path / "run" / "search")
    run(make_ledger("memory", tmp_path, storage=open_storage(url, tmp_path), name=name), most=7)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert study_name(url, tmp_path / "moved" / "search") == name
    assert usage_of_study(url, tmp_path / "moved" / "search").trials == 7
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="there is no study of the search in"):
        usage_of_study(url, tmp_path / "other")


def test_an_incomplete_last_line_of_a_journal_is_removed(tmp_path: Path) -> None:
    run(make_ledger("journal", tmp_path), most=5)
    path = tmp_path / "study.journal"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    ledger = run(make_ledger("journal", tmp_path))
    assert ledger.finished == 30
    assert outcomes(make_ledger("journal", tmp_path)) == outcomes(ledger)
    cut_torn_line(tmp_path / "none")  # nothing to cut is no error


def test_a_result_whose_state_was_lost_counts_as_recorded(tmp_path: Path) -> None:
    run(make_ledger("journal", tmp_path), most=5)
    path = tmp_path / "study.journal"
    path.write_bytes(path.read_bytes()[:-20])  # of the last trial's state
    assert finished_numbers("journal", tmp_path) == {0, 1, 2, 3, 4}
    path.write_bytes(b"no journal\n" + path.read_bytes())
    assert finished_numbers("journal", tmp_path) is None
    assert finished_numbers(None, tmp_path) == set()


def test_a_storage_that_can_not_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"this is no database, and long enough to be seen as none" * 40)
    with pytest.raises(InputError, match="can't be opened"):
        open_storage(None, tmp_path)
    with pytest.raises(InputError, match="can't be opened"):
        open_storage("nonsense://x", tmp_path)


def test_results_are_synced_on_demand_and_a_killed_process_needs_no_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    ledger = make_ledger("sqlite", tmp_path)
    run(ledger, most=3)
    log = tmp_path / "study.db-wal"
    assert finished_numbers(None, tmp_path) == {0, 1, 2}  # another connection, as after a kill
    ledger.sync()
    assert synced == [log.stat().st_ino]
    with ledger.storage.engine.connect() as connection:  # type: ignore[attr-defined]
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL: no sync per commit
    ledger.close()
    ledger.sync()  # nothing is left to write
