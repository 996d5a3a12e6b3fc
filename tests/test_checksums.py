"""Damage to a recorded file is found, and no killed or concurrent writer makes a false alarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepfront import checksums
from stepfront.checksums import CHECKSUMS_FILE, begin_record, damaged_files, forget, read_checked, record_as_it_is
from stepfront.errors import InputError
from stepfront.files import read_json, write_json, write_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    begin_record(tmp_path)
    write_json(tmp_path / "facts.json", {"a": 1})
    write_text(tmp_path / "images" / "index.json", "[]")
    return tmp_path


def test_what_was_written_is_read(folder: Path) -> None:
    assert read_json(folder / "facts.json", "search") == {"a": 1}
    write_json(folder / "facts.json", {"a": 2})
    assert read_json(folder / "facts.json", "search") == {"a": 2}
    assert damaged_files(folder) == {}


@pytest.mark.parametrize("place", ["facts.json", "images/index.json"])
def test_every_flipped_byte_is_found(place: str, folder: Path) -> None:
    content = (folder / place).read_bytes()
    for i in range(len(content)):
        (folder / place).write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        with pytest.raises(InputError, match=rf"{place} is damaged or was changed"):
            read_checked(folder / place)
        assert damaged_files(folder) == {place: "is damaged"}


def test_a_missing_file_and_a_folder_in_its_place_are_found(folder: Path) -> None:
    (folder / "facts.json").unlink()
    (folder / "images" / "index.json").unlink()
    (folder / "images" / "index.json").mkdir()
    assert damaged_files(folder) == {"facts.json": "is missing", "images/index.json": "is not a file"}


def test_a_damaged_record_is_found_and_accuses_no_other_file(folder: Path) -> None:
    record = folder / CHECKSUMS_FILE
    text = record.read_text()
    record.write_text(text.replace("facts", "fakts"))
    with pytest.raises(InputError, match=r"checksums\.json is damaged"):
        damaged_files(folder)
    assert read_json(folder / "facts.json", "search") == {"a": 1}


def test_a_writer_killed_before_the_rename_leaves_the_old_file_good(folder: Path, tmp_path: Path) -> None:
    new = folder / ".part"
    new.write_text('{"a": 2}')
    checksums.expect(folder / "facts.json", new)
    assert read_json(folder / "facts.json", "search") == {"a": 1}
    new.rename(folder / "facts.json")
    assert read_json(folder / "facts.json", "search") == {"a": 2}


def test_damage_does_not_count_as_good_once_the_file_is_written_again(folder: Path) -> None:
    (folder / "facts.json").write_text('{"a": 7}')
    write_json(folder / "facts.json", {"a": 2})
    (folder / "facts.json").write_text('{"a": 7}')
    with pytest.raises(InputError):
        read_json(folder / "facts.json", "search")


def test_files_of_others_are_recorded_or_forgotten_when_told(folder: Path) -> None:
    (folder / "study.db").write_bytes(b"one")
    record_as_it_is(folder / "study.db")
    (folder / "study.db").write_bytes(b"two")
    assert damaged_files(folder) == {"study.db": "is damaged"}
    forget(folder / "study.db")
    assert damaged_files(folder) == {}


def test_a_folder_without_a_record_gets_none(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    (tmp_path / "manifest.json").write_text("{}")
    write_json(tmp_path / "a.json", {"b": 1})
    assert not (tmp_path / CHECKSUMS_FILE).exists()
    (tmp_path / CHECKSUMS_FILE).write_text('{"mine": 1}')  # somebody else's file of that name
    write_json(tmp_path / "a.json", {"b": 2})
    assert (tmp_path / CHECKSUMS_FILE).read_text() == '{"mine": 1}'
