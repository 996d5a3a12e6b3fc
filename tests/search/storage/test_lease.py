"""Two drivers never meet at a URI: the second is refused, unless the first one's lease has expired."""

from __future__ import annotations

import os

import pytest

from stepfront.errors import InputError
from stepfront.files import write_text
from stepfront.search.storage import lease
from stepfront.search.storage.lock import InUseError
from stepfront.search.storage.mirror import Mirror
from stepfront.search.storage.run_location import copy_folder, open_for_writing
from tests.search.storage.conftest import Machine, content


def test_a_second_driver_is_refused_and_learns_who_is_at_work(uri: str, machine: Machine) -> None:
    with open_for_writing(uri) as location:
        write_text(location.local / "trials", "1")
        with pytest.raises(InputError, match="in use by another stepfront"), open_for_writing(uri):
            pass  # on this machine by the copy's lock
        machine("b")
        with (
            pytest.raises(InputError, match=f"process {os.getpid()}, since .* runs out within 5 minutes"),
            open_for_writing(uri),
        ):
            pass  # on another by the lease
    machine("b")
    with open_for_writing(uri) as location:
        assert (location.local / "trials").read_text() == "1"


def test_a_lease_that_expired_is_taken_over_and_its_holder_stops(
    uri: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Mirror(uri, copy_folder(uri, "work"))
    first._write_state()
    monkeypatch.setattr(lease, "LEASE_SECONDS", -1.0)
    first.lease.acquire()
    write_text(first.folder / "trials", "first")
    monkeypatch.setattr(lease, "LEASE_SECONDS", 300.0)
    machine("b")
    with open_for_writing(uri) as location:
        write_text(location.local / "trials", "second")
        with pytest.raises(InUseError, match="was taken over by another stepfront"):
            first.upload()
    with pytest.raises(InUseError, match="was changed by another stepfront"):  # that one has come and gone
        first.upload()
    assert content(uri) == {"trials": b"second"}


def test_a_dead_driver_of_the_same_copy_is_not_waited_for(uri: str, machine: Machine) -> None:
    dead = Mirror(uri, copy_folder(uri, "work"))
    dead._write_state()
    dead.lease.acquire()  # killed: the lease stays
    with open_for_writing(uri) as location:
        write_text(location.local / "trials", "1")
    assert content(uri) == {"trials": b"1"}
