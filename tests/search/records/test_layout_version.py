"""A search directory of another version of stepfront is refused in one line that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepfront.errors import InputError
from stepfront.search.config import save_settings, settings_from
from stepfront.search.records.layout_version import FORMAT, check_format
from stepfront.search.records.run_directory import find_search, resume_settings

OLD = "was made by stepfront 0.1"


@pytest.mark.parametrize("settings", ["seeds: {uniform: 4}", "screen: {rung: model, offspring: 4}"])
def test_settings_of_the_first_version_are_recognised(tmp_path: Path, settings: str) -> None:
    (tmp_path / "settings.yaml").write_text(settings)
    with pytest.raises(InputError, match=OLD):
        resume_settings(tmp_path)  # before its first table
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(InputError, match="--fresh") as caught:
        find_search(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["controls.parquet", "rungs.parquet"])
def test_tables_of_the_first_version_are_recognised(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=OLD):
        check_format(tmp_path)


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(InputError, match="install a newer stepfront"):
        check_format(tmp_path)


def test_this_layout_an_empty_folder_and_damaged_facts_pass(tmp_path: Path) -> None:
    check_format(tmp_path)
    save_settings(settings_from({}), tmp_path / "settings.yaml")
    (tmp_path / "search.json").write_text(json.dumps({"format": FORMAT}))
    check_format(tmp_path)
    (tmp_path / "search.json").write_text("{")
    check_format(tmp_path)
    (tmp_path / "settings.yaml").write_text("[")
    check_format(tmp_path)
