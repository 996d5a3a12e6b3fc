"""Files at a URI: complete or not there, and errors of one line without secrets."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from stepfront import file_store
from stepfront.errors import InputError
from stepfront.file_store import FileStore


def test_files_go_up_and_come_down(uri: str, tmp_path: Path) -> None:
    store = pickle.loads(pickle.dumps(FileStore(uri)))  # as a worker of Ray receives it
    assert store.names() == []
    (tmp_path / "given").write_bytes(b"1")
    store.upload(tmp_path / "given", "deep/er/a")
    store.write_json("b", {"c": 1})
    assert store.names() == ["b", "deep/er/a"]
    store.download("deep/er/a", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"1"
    assert store.read_json("b") == {"c": 1}
    assert store.read_json("deep/er/a") is None
    assert store.read_json("missing") is None
    store.delete("b")
    store.delete("b")
    assert store.names() == ["deep/er/a"]
    with pytest.raises(InputError, match=r"can't read b of [^\n]*$"):
        store.download("b", tmp_path / "got")


def test_an_upload_that_an_exception_ends_changes_nothing(uri: str) -> None:
    store = FileStore(uri)
    store.write_json("a", {"old": 1})

    def fail_halfway(place: str) -> None:
        with store._files.open_output_stream(place) as target:
            target.write(b"half")
            raise OSError("the line is cut")

    with pytest.raises(InputError, match=r"can't write a to .*: the line is cut"):
        store._write("a", fail_halfway, 4)
    assert store.read_json("a") == {"old": 1}
    store.write_json("a", {"new": 1})
    assert store.names() == ["a"]


def test_files_too_large_to_be_moved_are_written_too(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_store, "_S3_COPY_LIMIT", 1)
    (tmp_path / "given").write_text("1234")
    store = FileStore(uri)
    store.upload(tmp_path / "given", "a")
    store.download("a", tmp_path / "got")
    assert (tmp_path / "got").read_text() == "1234"


def test_errors_are_one_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no file system is known for nope://; possible: file, s3"):
        FileStore("nope://bucket/runs")
    monkeypatch.setenv("KEY", "very-secret")
    with pytest.raises(InputError) as caught:
        FileStore("nope://me:${KEY}@bucket/runs?secret_key=${KEY}")
    assert "very-secret" not in str(caught.value)
    with pytest.raises(InputError, match=r"names \$\{MISSING\}"):
        FileStore("s3://me:${MISSING}@bucket/runs")
