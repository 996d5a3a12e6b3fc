"""Whole files or none."""

from __future__ import annotations

import errno
import hashlib
import math
import os
from pathlib import Path

import pytest

from stepfront.beside import part_of, remove_left_parts
from stepfront.errors import InputError
from stepfront.files import file_digest, read_json, write_atomically, write_json, write_text


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_written_files_are_whole_and_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "er" / "a.txt", "grün\n")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "grün\n".encode()
    assert left_in(tmp_path / "deep" / "er") == ["a.txt"]


def test_what_stood_there_stays_readable_until_the_new_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(beside: Path) -> None:
        beside.write_text("ne")
        assert path.read_text() == "old"
        beside.write_text("new")

    with path.open() as reader:
        write_atomically(path, write)
        assert reader.read() == "old"  # who had it open meets no mixture either
    assert path.read_text() == "new"


class WrappedError(Exception):
    """As safetensors and pyarrow wrap what the system said."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        WrappedError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_damages_nothing_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "weights"
    path.write_text("old")

    def write(beside: Path) -> None:
        beside.write_text("half of the n")
        raise error

    with pytest.raises(InputError, match=r"(?i)can't write .*weights: no space left.*nothing there was changed"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert left_in(tmp_path) == ["weights"]


def test_what_a_killed_process_left_of_a_database_goes_with_its_journal(tmp_path: Path) -> None:
    part = part_of(tmp_path / "mlflow.db")
    dead = part.with_name(part.name.replace(f"-{os.getpid()}.", "-4194999."))
    for ending in ("", "-journal", "-wal", "-shm"):
        (tmp_path / f"{dead.name}{ending}").write_text("half")
        (tmp_path / f"{part.name}{ending}").write_text("at work")
    remove_left_parts(tmp_path / "mlflow.db")
    assert left_in(tmp_path) == sorted(f"{part.name}{ending}" for ending in ("", "-journal", "-wal", "-shm"))


@pytest.mark.parametrize("error", [RuntimeError("a fault of ours"), KeyboardInterrupt()])
def test_other_interruptions_pass_and_damage_nothing_either(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "weights"
    path.write_text("old")

    def write(beside: Path) -> None:
        beside.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert left_in(tmp_path) == ["weights"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"can't write .*file/a\.txt"):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json", "card") == content


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": math.nan})
    assert read_json(tmp_path / "a.json", "card") == {}


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe", b"[1, 2]", b'"text"'])
def test_a_damaged_json_file_names_itself_and_what_it_should_be(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is not a .*supernet card"):
        read_json(tmp_path / "a.json", "supernet card")


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no supernet card at .*a\.json"):
        read_json(tmp_path / "a.json", "supernet card")


def test_digest_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()
